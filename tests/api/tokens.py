"""A door with tokens, and clients that have one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import ClientSession
from api.door import Api, answers, opened, until

from taskrunner.domain.access import Scope

TOKENS = {scope: f"{scope}-4f1c0b7e9d2a6358" * 2 for scope in Scope}
GIVEN = tuple(f"{scope}:{token}" for scope, token in TOKENS.items())


@asynccontextmanager
async def closed(dsn: str) -> AsyncIterator[Api]:
    """The API with a token for each scope in its settings, and a client that has none."""
    async with opened(dsn, api_tokens=GIVEN) as api:
        await until(lambda: answers(api.http, "/readyz"))
        yield api


@asynccontextmanager
async def caller(api: Api, token: str) -> AsyncIterator[Api]:
    """The same API with a client that sends ``token``."""
    async with ClientSession(str(api.http._base_url), headers={"Authorization": f"Bearer {token}"}) as http:
        yield replace(api, http=http)


def port_of(api: Api) -> int:
    """Where it listens."""
    url = api.http._base_url
    assert url is not None
    assert url.port is not None
    return url.port


async def becomes(api: Api, status: int, *, within: float, path: str = "/api/tasks") -> float:
    """Seconds until ``path`` is answered with ``status``. Raises TimeoutError."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(within):
        while True:
            async with api.http.get(path) as answer:
                if answer.status == status:
                    return loop.time() - began
            await asyncio.sleep(0.02)
