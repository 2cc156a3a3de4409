"""A real door on a real database, with a client that speaks to it over a socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from aiohttp import ClientResponse, ClientSession

from taskrunner.api.role import serve
from taskrunner.settings import Settings
from taskrunner.store import leaves
from taskrunner.store.tasks import Store, open_store


@dataclass(frozen=True)
class Api:
    """What a test holds: the client, and the database behind the door's back."""

    http: ClientSession
    store: Store
    dsn: str

    async def create(self, **fields: Any) -> dict[str, Any]:
        """A task of type ``x`` unless said otherwise, as the API answered it."""
        async with self.http.post("/api/tasks", json={"task_type": "x", **fields}) as answer:
            assert answer.status == 201, await answer.text()
            return dict(await answer.json())

    async def sql(self, text: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of a statement that the engine does not know of."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(text.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def finish(self, task: str, status: str = "COMPLETED", *, result: str | None = None, error: str | None = None) -> None:
        """End a task as a scheduler would."""
        await self.make_leaves()
        await self.sql(
            "update tasks set status = %s, result = %s::jsonb, error = %s, finished_at = now(), updated_at = now(), "
            "attempt = 1, epoch = 1, session = null, stream = null where id = %s",
            *(status, result, error, task),
        )

    async def make_leaves(self) -> None:
        """Make the leaves of the days, as a scheduler would."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await leaves.make(connection)

    async def hold(self, task: str) -> None:
        """Give a task to a worker."""
        await self.sql(
            "with s as (insert into sessions (id, lease_until) values (gen_random_uuid(), now() + interval '1 hour') returning id) "
            "update tasks_live t set status = 'RUNNING', session = s.id, stream = 1, attempt = 1, epoch = 1 from s where t.id = %s",
            task,
        )


@asynccontextmanager
async def opened(dsn: str, *, store_dsn: str | None = None, **others: Any) -> AsyncIterator[Api]:
    """The API on a free port. ``store_dsn`` is another way to the same database, or to none; ``others`` are settings."""
    settings = Settings(http_port=0, grace=5, **others)
    async with (
        open_store(store_dsn or dsn, settings) as store,
        serve(settings, store) as door,
        ClientSession(door.url) as http,
    ):
        yield Api(http, store, dsn)


async def answers(http: ClientSession, url: str) -> bool:
    """Whether ``url`` is answered with 200."""
    async with http.get(url) as answer:
        return answer.status == 200


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition; pytest's timeout is the end of patience."""
    while not await condition():
        await asyncio.sleep(0.01)


async def problem(answer: ClientResponse) -> dict[str, Any]:
    """The document of a refusal, which always has the same form."""
    assert answer.content_type == "application/problem+json"
    document = dict(await answer.json())
    assert document["status"] == answer.status
    assert document["error"] == document["detail"]
    assert document["instance"] == answer.url.raw_path
    assert {"type", "title", "code"} <= set(document)
    return document
