"""Waiting and reading at scale: one question for everybody, and none where the same process knows the answer."""

import asyncio
from uuid import UUID, uuid4

import psycopg
import pytest
from api.door import Api, problem
from structlog.testing import capture_logs

from taskrunner.api.reading import BATCH, Reader
from taskrunner.api.waiting import Hub
from taskrunner.domain.errors import Unavailable
from taskrunner.settings import Settings
from taskrunner.store.tasks import open_store


async def test_what_this_process_settles_wakes_who_waits_without_a_question(api: Api) -> None:
    hub = Hub(api.store)
    mine, other = uuid4(), uuid4()
    waits = [asyncio.ensure_future(hub.wait(key, 30)) for key in (mine, mine, other)]
    await asyncio.sleep(0)
    hub.settled(uuid4().bytes + mine.bytes)
    await asyncio.wait(waits[:2])
    assert not waits[2].done()
    hub.close()
    await waits[2]


async def test_a_settled_attempt_that_is_retried_does_not_end_the_wait(api: Api) -> None:
    task = await api.create(delay=60)

    async def told() -> None:
        while True:
            for tell in api.store.settled:
                tell(UUID(task["id"]).bytes)
            await asyncio.sleep(0.01)

    telling = asyncio.ensure_future(told())
    async with api.http.get(f"/api/tasks/{task['id']}?wait=0.5") as answer:
        assert (await answer.json())["status"] == "PENDING"
    telling.cancel()


async def test_reads_at_the_same_time_share_statements(api: Api) -> None:
    reader = Reader(api.store)
    running = asyncio.ensure_future(reader.run())
    async with api.http.post("/api/tasks/batch", json=[{"task_type": "x", "payload": n} for n in range(2 * BATCH)]) as answer:
        ids = [UUID(item["id"]) for item in (await answer.json())["items"]]
    await api.make_leaves()
    await api.sql(
        "insert into attempts (task_id, epoch, attempt, outcome, error) select %s, n, n, 'ERROR', 'e' || n from generate_series(1, 2) n",
        ids[3],
    )
    await api.sql("update tasks_live set attempt = 2 where id = %s", ids[3])
    asked = [*ids, uuid4(), ids[0]]
    before = api.store.pool.get_stats()["requests_num"]
    found = await asyncio.gather(*(reader.get(key) for key in asked))
    after = api.store.pool.get_stats()["requests_num"]
    assert [None if one is None else one.task.id for one in found] == [*ids, None, ids[0]]
    assert [one.error for one in found[3].attempts] == ["e1", "e2"] if found[3] else False
    assert after - before < 10
    reader.close()
    await running


async def test_readers_hear_that_the_database_is_away() -> None:
    async with open_store("postgresql://127.0.0.1:1/nothing", Settings()) as store:
        reader = Reader(store)
        running = asyncio.ensure_future(reader.run())
        for answer in await asyncio.gather(*(reader.get(uuid4()) for _ in range(3)), return_exceptions=True):
            assert isinstance(answer, Unavailable)
        reader.close()
        await running


@pytest.mark.parametrize("n", [1, 700])
async def test_everybody_who_waits_is_answered(api: Api, n: int) -> None:
    async with api.http.post("/api/tasks/batch", json=[{"task_type": "x", "delay": 60}] * n) as answer:
        ids = [item["id"] for item in (await answer.json())["items"]]

    async def wait(key: str) -> str:
        async with api.http.get(f"/api/tasks/{key}?wait=30") as answer:
            return str((await answer.json())["status"])

    await api.make_leaves()
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(wait(key)) for key in ids]
        async with await psycopg.AsyncConnection.connect(api.dsn, autocommit=True) as connection:
            await connection.execute("update tasks set status = 'CANCELLED', finished_at = now()")
    assert {one.result() for one in waits} == {"CANCELLED"}


async def test_a_read_that_fails_by_our_fault_is_500_and_the_next_one_fares_better(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    task = await api.create()

    async def broken(_: object) -> None:
        raise ValueError("a row that nobody can read")

    with capture_logs() as lines, monkeypatch.context() as patch:
        patch.setattr(api.store, "get_many", broken)
        async with asyncio.timeout(5), api.http.get(f"/api/tasks/{task['id']}") as answer:
            assert (answer.status, (await problem(answer))["code"]) == (500, "internal")
    (line,) = lines
    assert repr(line["exc_info"].__cause__) == "ValueError('a row that nobody can read')"
    async with api.http.get(f"/api/tasks/{task['id']}") as answer:
        assert answer.status == 200


async def test_a_reader_that_ends_early_leaves_nobody_waiting(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: object) -> None:
        await asyncio.Event().wait()

    reader = Reader(api.store)
    monkeypatch.setattr(reader, "_found", hang)
    asks = [asyncio.ensure_future(reader.get(uuid4())) for _ in range(BATCH + 1)]
    await asyncio.sleep(0)
    running = asyncio.ensure_future(reader.run())
    await asyncio.sleep(0)
    running.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([running, *asks])
    assert {type(ask.exception()) for ask in asks} == {Unavailable}
    with pytest.raises(Unavailable):
        await reader.get(uuid4())
