"""A scripted scheduler as a fixture."""

from collections.abc import AsyncIterator

import pytest
from worker.peer import Peer, open_peer


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with open_peer() as one:
        yield one
