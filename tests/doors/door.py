"""The pull door in this process, one call at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from aiohttp import ClientSession, ClientTimeout

from taskrunner import Client
from taskrunner.api.role import serve
from taskrunner.settings import Settings
from taskrunner.store import leaves
from taskrunner.store.tasks import open_store

LEASE = 0.6
WHO = {"name": "test", "task_types": ["t"]}


class Door:
    """The door, a client that creates tasks, and the database behind it."""

    def __init__(self, http: ClientSession, client: Client, dsn: str) -> None:
        self.http = http
        self.client = client
        self.dsn = dsn
        self.session: str | None = None

    async def call(self, what: str, *, status: int = 200, **body: Any) -> dict[str, Any]:
        async with self.http.post(f"/api/work/{what}", json=body) as answer:
            said = dict(await answer.json())
            assert answer.status == status, said
            return said

    async def claim(self, **body: Any) -> list[dict[str, Any]]:
        session = {"session": self.session} if self.session else {}
        answer = await self.call("claim", **(WHO | session | body))
        self.session = answer["session"]
        return list(answer["tasks"])

    async def settle(self, *outcomes: dict[str, Any]) -> dict[str, Any]:
        return await self.call("settle", session=self.session, outcomes=list(outcomes))

    async def beat(self, *held: dict[str, Any]) -> dict[str, Any]:
        return await self.call("beat", session=self.session, running=[[task["id"], task["epoch"]] for task in held])

    async def sql(self, text: str) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(text.encode())
            return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def door_at(dsn: str, **more: Any) -> AsyncIterator[Door]:
    settings = Settings(http_port=0, grace=2, lease=LEASE, **more)
    async with (
        open_store(dsn, settings) as store,
        serve(settings, store) as api,
        ClientSession(api.url, timeout=ClientTimeout(20)) as http,
        Client(api.url) as client,
    ):
        while not await store.ready():
            await asyncio.sleep(0.01)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await leaves.make(connection)
        while (await http.get("/readyz")).status != 200:
            await asyncio.sleep(0.01)
        yield Door(http, client, dsn)


def outcome(task: dict[str, Any], word: str, **more: Any) -> dict[str, Any]:
    return {"id": task["id"], "epoch": task["epoch"], "outcome": word, **more}


async def begun(door: Door, asking: "asyncio.Future[Any]") -> None:
    """Return when a session is there for the claim that is being asked for."""
    while not await door.sql("select 1 from sessions"):
        assert not asking.done(), asking
        await asyncio.sleep(0.01)
