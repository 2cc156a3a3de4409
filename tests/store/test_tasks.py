"""Reading and changing tasks by a person."""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from store.desk import Desk, T, opened, until_blocked

from taskrunner.domain.errors import Conflict, Unavailable
from taskrunner.domain.lifecycle import Status
from taskrunner.domain.task import TaskFilter
from taskrunner.store.notify import Hint
from taskrunner.store.settling import COMPLETED, ERROR
from taskrunner.wire.columns import ID, split


async def test_a_list_is_newest_first_and_goes_on_at_its_cursor(desk: Desk) -> None:
    ids = sorted(await desk.create(25), reverse=True)
    seen = []
    before = None
    for size in (10, 10, 5):
        page = await desk.store.list(TaskFilter(limit=10, before=before))
        assert len(page) == size
        seen += [task.id for task in page]
        before = page[-1].id
    assert seen == ids
    assert await desk.store.list(TaskFilter(before=before)) == []


async def test_each_filter_finds_its_tasks_live_or_finished(desk: Desk) -> None:
    (mail,) = await desk.create(task_type="mail", tags=("a", "b"))
    (slow,) = await desk.create(queue="slow", tags=("b",))
    held = await desk.held(tags=("c",))
    await desk.settling.settle(COMPLETED, held.done())
    ids = [mail, slow, held.ids[0]]
    born = {id_: (await desk.row(id_))["created_at"] for id_ in ids}

    async def found(**fields: object) -> set[int]:
        return {ids.index(task.id) for task in await desk.store.list(TaskFilter(**fields))}  # type: ignore[arg-type]  # fields of the filter

    assert await found() == {0, 1, 2}
    assert await found(task_type="mail") == {0}
    assert await found(queue="slow") == {1}
    assert await found(tags=("b",)) == {0, 1}
    assert await found(tags=("c",)) == {2}
    assert await found(tags=("nobody's",)) == set()
    assert await found(statuses=(Status.COMPLETED,)) == {2}
    assert await found(statuses=(Status.PENDING, Status.COMPLETED)) == {0, 1, 2}
    assert await found(created_after=born[mail]) == {1, 2}
    assert await found(created_before=born[slow]) == {0}
    assert await found(created_after=born[mail], queue="slow", tags=("b",), task_type="t") == {1}


async def test_counts_are_live_ones_as_they_are_and_finished_ones_from_the_tally(desk: Desk) -> None:
    held = await desk.held(5)
    await desk.settling.settle(COMPLETED, held.done())
    await desk.create(2, task_type="waiting")
    assert {one.status: one.n for one in await desk.store.counts()} == {"PENDING": 2, "COMPLETED": 5}
    await desk.store.retry(held.ids[0])
    assert {one.status: one.n for one in await desk.store.counts()} == {"PENDING": 3, "COMPLETED": 4}


async def test_finished_says_which_are_over_or_gone(desk: Desk) -> None:
    held = await desk.held(2)
    await desk.settling.settle(COMPLETED, held.done())
    (waiting,) = await desk.create(task_type="u")
    nobody = uuid4()
    asked = b"".join(id_.bytes for id_ in (*held.ids, waiting, nobody))
    assert {UUID(bytes=id_) for id_ in split(await desk.store.finished(asked), ID)} == {*held.ids, nobody}


async def test_a_waiting_task_is_cancelled_at_once(desk: Desk) -> None:
    (id_,) = await desk.create()
    task = await desk.store.cancel(id_)
    assert task is not None
    assert (task.status, task.finished_at is not None, task.attempt) == (Status.CANCELLED, True, 0)
    with pytest.raises(Conflict, match="CANCELLED already"):
        await desk.store.cancel(id_)
    assert await desk.store.cancel(uuid4()) is None


async def test_cancelling_a_held_task_only_asks_and_asks_once(desk: Desk) -> None:
    held = await desk.held(started=True)
    hints: asyncio.Queue[Hint] = asyncio.Queue()
    desk.store.hints.subscribe(hints.put_nowait)
    first = await desk.store.cancel(held.ids[0])
    second = await desk.store.cancel(held.ids[0])
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (Status.RUNNING, Status.RUNNING)
    assert first.cancel_requested_at == second.cancel_requested_at is not None  # the grace counts from the first time
    async with asyncio.timeout(5):
        assert (await hints.get()).cancels == {held.session}


async def test_a_finished_task_runs_again_under_the_epoch_it_had(desk: Desk) -> None:
    held = await desk.held(attempts=1, tags=("x",), priority=3, max_attempts=1, timeout=7)
    await desk.settling.settle(ERROR, held.error())
    before = await desk.row(held.ids[0])
    assert before["status"] == "FAILED"
    with pytest.raises(Conflict, match="is not waiting: it is FAILED"):
        await desk.store.run_now(held.ids[0])
    task = await desk.store.retry(held.ids[0])
    assert task is not None
    after = await desk.row(held.ids[0])
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"status", "run_at", "attempt", "updated_at", "finished_at", "error"}
    assert (after["attempt"], after["epoch"], after["error"]) == (0, 1, None)
    with pytest.raises(Conflict, match="is not finished: it is PENDING"):
        await desk.store.retry(held.ids[0])
    assert await desk.store.retry(uuid4()) is None
    again = await desk.claim(await desk.worker(), 1, lane=T._replace(priority=3))
    assert again.epochs == [2]  # never a number that somebody had before


async def test_a_retry_is_refused_while_another_live_task_has_its_unique_key(desk: Desk) -> None:
    held = await desk.held()
    await desk.db.execute("update tasks_live set unique_key = 'k'")
    await desk.settling.settle(COMPLETED, held.done())
    (other,) = await desk.create()
    await desk.db.execute("update tasks_live set unique_key = 'k'")
    with pytest.raises(Conflict, match="unique_key"):
        await desk.store.retry(held.ids[0])
    assert await desk.statuses([held.ids[0], other]) == ["COMPLETED", "PENDING"]


async def test_run_now_makes_a_waiting_task_due_and_says_so(desk: Desk) -> None:
    (id_,) = await desk.create(delay=3600)
    hints: asyncio.Queue[Hint] = asyncio.Queue()
    await asyncio.sleep(0)
    desk.store.hints.subscribe(hints.put_nowait)
    task = await desk.store.run_now(id_)
    assert task is not None
    assert task.run_at <= await desk.now()
    async with asyncio.timeout(5):
        while (hint := await hints.get()).lanes[T][0] != task.run_at:
            pass
    assert hint.lanes[T][1] == 0.0
    held = await desk.claim(await desk.worker(), 1)
    assert held.ids == [id_]
    with pytest.raises(Conflict, match="is not waiting: it is QUEUED"):
        await desk.store.run_now(id_)
    assert await desk.store.run_now(uuid4()) is None


async def test_two_people_who_retry_at_once_make_one_run_of_it(desk: Desk) -> None:
    held = await desk.held()
    await desk.settling.settle(COMPLETED, held.done())
    answers = []

    async def retry() -> None:
        try:
            answers.append((await desk.store.retry(held.ids[0])) is not None)
        except Conflict:
            answers.append(False)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(retry())
    assert sorted(answers) == [False] * 4 + [True]
    assert await desk.statuses(held.ids) == ["PENDING"]


async def test_a_cancel_that_meets_a_claim_asks_the_new_holder(desk: Desk, dsn: str) -> None:
    (id_,) = await desk.create()
    worker = await desk.worker()
    async with opened(dsn) as other:
        async with desk.db.transaction():
            await desk.db.execute(
                "update tasks_live set status = 'QUEUED', session = %s, stream = 1, epoch = 1, attempt = 1 where id = %s",
                (worker.session, id_),
            )
            async with asyncio.TaskGroup() as group:
                cancel = group.create_task(other.store.cancel(id_))
                await until_blocked(other)
                await desk.db.execute("commit")
        task = cancel.result()
    assert task is not None
    assert task.status == Status.QUEUED
    assert task.cancel_requested_at is not None


async def test_a_locked_task_is_busy_not_gone(desk: Desk) -> None:
    (id_,) = await desk.create(run_at=await desk.now() + timedelta(hours=1))
    async with desk.db.transaction():
        await desk.db.execute("select from tasks_live for update")
        with pytest.raises(Unavailable, match="busy"):
            await desk.store.run_now(id_)
    assert await desk.store.run_now(id_) is not None


async def test_ready_means_that_the_schema_is_there(desk: Desk, empty_dsn: str) -> None:
    assert await desk.store.ready()
    await desk.store.ping()
    async with opened(empty_dsn) as empty:
        assert not await empty.store.ready()
        await empty.store.ping()
        with pytest.raises(Unavailable, match="the schema is not there yet"):
            await empty.create()
