"""Schedulers as fixtures."""

from collections.abc import AsyncIterator

import pytest
from scheduler.workman import House, opened


@pytest.fixture
async def house(dsn: str) -> AsyncIterator[House]:
    async with opened(dsn) as it:
        yield it
