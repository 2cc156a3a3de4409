"""Group commit: few commits for many creates, and no create pays for its neighbour."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from aiohttp import ClientSession
from api.door import Api, answers, until

from taskrunner.api import creator as creator_room
from taskrunner.api.creator import BATCH, WAITING, Creator
from taskrunner.api.role import serve
from taskrunner.domain.errors import BadTask, OutcomeUnknown, Unavailable
from taskrunner.domain.task import NewTask
from taskrunner.settings import Settings

TASK = NewTask(task_type="x", payload="{}")
BAD = NewTask(task_type="bad", payload="{}", timeout=1e-300)  # our checks take it, PostgreSQL's real does not


async def commits(api: Api) -> int:
    """How many transactions wrote the tasks that are there."""
    return int((await api.sql("select count(distinct xmin::text) from tasks_live"))[0][0])


async def test_concurrent_posts_share_commits(api: Api) -> None:
    async def client() -> None:
        for _ in range(10):
            await api.create()

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(client())
    assert await api.sql("select count(*) from tasks") == [(500,)]
    assert await commits(api) <= 250


async def test_what_waits_goes_together(api: Api) -> None:
    creator = Creator(api.store)
    async with asyncio.TaskGroup() as group:
        asks = [group.create_task(creator.create(TASK)) for _ in range(2 * BATCH)]
        await asyncio.sleep(0)
        group.create_task(creator.run())
        creator.close()
    assert len({ask.result().id for ask in asks}) == 2 * BATCH
    assert await commits(api) == 2


async def test_a_statement_holds_a_bounded_number_of_bytes(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creator_room, "BYTES", 100_000)
    creator = Creator(api.store)
    large = NewTask(task_type="x", payload='"' + "y" * 20_000 + '"')
    async with asyncio.TaskGroup() as group:
        asks = [group.create_task(creator.create(large)) for _ in range(13)]
        await asyncio.sleep(0)
        group.create_task(creator.run())
        creator.close()
    assert len({ask.result().id for ask in asks}) == 13
    assert await api.sql("select count(*) from tasks_live group by xmin::text order by 1") == [(3,), (5,), (5,)]


async def test_parts_that_nobody_has_begun_are_refused_when_it_stops(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creator_room, "BYTES", 1)
    creator = Creator(api.store)
    async with await psycopg.AsyncConnection.connect(api.dsn) as stranger:
        await stranger.execute("lock table tasks_live in exclusive mode")
        asks = [asyncio.ensure_future(creator.create(TASK)) for _ in range(3)]
        await asyncio.sleep(0)
        runner = asyncio.ensure_future(creator.run())
        await asyncio.sleep(0.2)
        runner.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait([runner, *asks])
    assert [type(ask.exception()) for ask in asks] == [OutcomeUnknown, Unavailable, Unavailable]


async def test_a_creator_that_ends_early_leaves_nobody_waiting(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(api.store, "create", hang)
    creator = Creator(api.store)
    asks = [asyncio.ensure_future(creator.create(TASK)) for _ in range(BATCH + 1)]
    await asyncio.sleep(0)
    runner = asyncio.ensure_future(creator.run())
    for _ in range(3):
        await asyncio.sleep(0)
    runner.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([runner, *asks])
    assert [type(ask.exception()) for ask in asks] == [OutcomeUnknown] * BATCH + [Unavailable]


async def test_bad_rows_do_not_fail_their_neighbours(api: Api) -> None:
    creator = Creator(api.store)
    async with asyncio.TaskGroup() as group:
        asks = [asyncio.ensure_future(creator.create(BAD if n in (0, 17, 99) else TASK)) for n in range(100)]
        group.create_task(creator.run())
        await asyncio.wait(asks)
        creator.close()
    refused = [n for n, ask in enumerate(asks) if isinstance(ask.exception(), BadTask)]
    assert refused == [0, 17, 99]
    assert await api.sql("select count(*), count(*) filter (where task_type = 'bad') from tasks") == [(97, 0)]


async def test_a_bad_row_is_422_over_http(api: Api) -> None:
    async with api.http.post("/api/tasks", data=b'{"task_type":"x","timeout":1e-300}') as answer:
        document = await answer.json()
        assert answer.status == 422
    assert "refused by the database" in document["error"]


async def test_what_has_waited_too_long_is_refused_and_so_is_what_comes_behind_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that hangs: nobody waits longer than for the batch under way, and nothing is written behind anybody's back."""
    monkeypatch.setattr(creator_room, "PATIENCE", 0.3)
    creator = Creator(api.store)
    async with await psycopg.AsyncConnection.connect(api.dsn) as stranger, asyncio.TaskGroup() as group:
        await stranger.execute("lock table tasks_live in exclusive mode")
        group.create_task(creator.run())
        first = asyncio.ensure_future(creator.create(TASK))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(creator.create(TASK))
        await asyncio.sleep(0.4)
        with pytest.raises(Unavailable, match="faster than the database takes them"):
            await creator.create(TASK)
        await stranger.rollback()
        assert (await first).id
        with pytest.raises(Unavailable, match="faster than the database takes them"):
            await second
        assert (await creator.create(TASK)).id
        creator.close()
    assert await api.sql("select count(*) from tasks") == [(2,)]


async def test_too_many_waiting_are_told_to_come_back_and_the_rest_is_drained(api: Api) -> None:
    creator = Creator(api.store)
    asks = [asyncio.ensure_future(creator.create(TASK)) for _ in range(WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="waiting for the database already"):
        await creator.create(TASK)
    creator.close()
    await creator.run()
    await asyncio.wait(asks)
    assert all(ask.exception() is None for ask in asks)
    assert await api.sql("select count(*) from tasks") == [(WAITING,)]


@asynccontextmanager
async def locked(dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Nobody can create while this is open, or until it is rolled back."""
    async with await psycopg.AsyncConnection.connect(dsn) as blocker:
        await blocker.execute("lock table tasks_live in share mode")
        yield blocker
        await blocker.rollback()


async def creates_wait(api: Api) -> bool:
    return bool(await api.sql("select 1 from pg_locks where relation = 'tasks_live'::regclass and not granted"))


async def test_a_create_that_is_cut_off_in_flight_has_an_unknown_outcome(api: Api) -> None:
    creator = Creator(api.store)
    async with locked(api.dsn):
        ask = asyncio.ensure_future(creator.create(TASK))
        runner = asyncio.ensure_future(creator.run())
        await until(lambda: creates_wait(api))
        runner.cancel()
        await asyncio.wait([runner, ask])
    assert isinstance(ask.exception(), OutcomeUnknown)


async def test_what_is_in_flight_is_committed_before_the_door_is_gone(api: Api) -> None:
    settings = Settings(http_port=0, grace=5)

    async def release_once_shut(blocker: psycopg.AsyncConnection[Any], port: int) -> None:
        async def shut() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return True
            writer.close()
            return False

        await until(shut)
        await blocker.rollback()

    async with locked(api.dsn) as blocker, ClientSession() as http, asyncio.TaskGroup() as group:
        async with serve(settings, api.store) as door:
            await until(lambda: answers(http, f"{door.url}/readyz"))
            post = group.create_task(http.post(f"{door.url}/api/tasks", json={"task_type": "x"}))
            await until(lambda: creates_wait(api))
            group.create_task(release_once_shut(blocker, door.port))
        async with await post as answer:
            assert answer.status == 201
    assert await api.sql("select count(*) from tasks") == [(1,)]
