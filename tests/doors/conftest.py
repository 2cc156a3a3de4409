"""A service of real processes, and the door over HTTP of one in this process."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from doors.door import Door, door_at
from doors.town import Town


@pytest.fixture
def town(tmp_path: Path, dsn: str) -> Iterator[Town]:
    one = Town(tmp_path, dsn)
    yield one
    one.close()


@pytest.fixture
async def door(dsn: str) -> AsyncIterator[Door]:
    async with door_at(dsn) as one:
        yield one
