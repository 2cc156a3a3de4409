"""The API on a fresh database, and both clients to it."""

from collections.abc import AsyncIterator

import pytest
from api.door import Api, answers, opened, until

from taskrunner import Client


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with opened(dsn) as it:
        await until(lambda: answers(it.http, "/readyz"))
        yield it


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    async with Client(str(api.http._base_url)) as one:
        yield one
