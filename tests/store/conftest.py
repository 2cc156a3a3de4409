"""The store as a fixture."""

from collections.abc import AsyncIterator

import pytest
from store.desk import Desk, opened


@pytest.fixture
async def desk(dsn: str) -> AsyncIterator[Desk]:
    async with opened(dsn) as it:
        yield it
