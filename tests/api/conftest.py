"""The API as a fixture."""

from collections.abc import AsyncIterator

import pytest
from api.door import Api, answers, opened, until


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with opened(dsn) as it:
        await until(lambda: answers(it.http, "/readyz"))
        yield it
