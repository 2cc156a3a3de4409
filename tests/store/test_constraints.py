"""Half-states that the database itself refuses, and the lock order that keeps statements from deadlock."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import psycopg
import pytest
from store.desk import Desk, Held, opened

from taskrunner.domain.errors import Conflict
from taskrunner.store import migrate
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, GIVEN_BACK

HALF = {
    "held without a session": "status = 'QUEUED'",
    "running without a session": "status = 'RUNNING'",
    "a session without a stream": "status = 'QUEUED', session = gen_random_uuid()",
    "a stream without a session": "stream = 1",
    "waiting with a session": "session = gen_random_uuid(), stream = 1",
    "finished without a time": "status = 'COMPLETED'",
    "a time without being finished": "finished_at = now()",
    "finished and held": "status = 'FAILED', finished_at = now(), session = gen_random_uuid(), stream = 1",
    "blocked but held": "blocked = true, status = 'QUEUED', session = gen_random_uuid(), stream = 1",
    "a seventh word": "status = 'SLEEPING'",
    "a fifth priority": "priority = 5",
    "no priority": "priority = 0",
    "no attempts": "max_attempts = 0",
    "no time": "timeout = 0",
    "a nameless type": "task_type = ''",
    "a nameless queue": "queue = ''",
    "a time out of time": "run_at = 'infinity'",
    "no end of time": "expires_at = 'infinity'",
    "before all time": "expires_at = '-infinity'",
    "a year of five digits": "expires_at = '10000-01-01 00:00:00+00'",
    "an empty key": "key = ''",
}


@pytest.mark.parametrize("half", HALF.values(), ids=HALF)
async def test_a_half_state_is_refused(desk: Desk, half: str) -> None:
    await desk.create()
    with pytest.raises(psycopg.errors.CheckViolation):
        await desk.db.execute(f"update tasks set {half}")


async def test_tasks_from_before_there_was_the_check_can_be_claimed_and_read(desk: Desk, dsn: str) -> None:
    while (await migrate.down(dsn))[0].version > 6:
        pass
    await desk.upkeep.make_leaves()
    plain, never, past, late, over = await desk.create(5)
    odd = {never: "infinity", past: "-infinity", late: "10000-01-01", over: "infinity"}
    for id_, time in odd.items():
        await desk.db.execute("update tasks_live set expires_at = %s::timestamptz where id = %s", [time, id_])
    await desk.db.execute("update tasks set status = 'COMPLETED', finished_at = now() where id = %s", [over])
    assert await migrate.up(dsn)
    assert {task.id: task.expires_at for task in await desk.store.get_many([plain, *odd])} == {
        **dict.fromkeys((plain, never, late, over)),
        past: datetime(1, 1, 1, tzinfo=UTC),
    }
    assert {*(await desk.claim(await desk.worker(), 5)).ids} == {plain, never, late}


@pytest.mark.parametrize("half", ["status = 'DEAD'", "dead_at = now()", "status = 'ASLEEP'"])
async def test_a_half_dead_session_is_refused(desk: Desk, half: str) -> None:
    await desk.worker()
    with pytest.raises(psycopg.errors.CheckViolation):
        await desk.db.execute(f"update sessions set {half}")


async def test_two_live_tasks_cannot_have_one_unique_key(desk: Desk) -> None:
    await desk.create(2)
    with pytest.raises(psycopg.errors.UniqueViolation):
        await desk.db.execute("update tasks_live set unique_key = 'k'")


async def test_batches_in_opposite_orders_and_a_cancel_between_never_deadlock(desk: Desk, dsn: str) -> None:
    """A deadlock would come out as Unavailable."""
    worker = await desk.worker()

    async def cancel(held: Held) -> None:
        for id_ in (held.ids[7], held.ids[3]):
            with suppress(Conflict):
                await desk.store.cancel(id_)

    async with opened(dsn) as other, opened(dsn) as third:
        for kind, again in [(COMPLETED, ERROR), (ERROR, GIVEN_BACK), (GIVEN_BACK, CANCELLED), (CANCELLED, COMPLETED)] * 13:
            await desk.create(40)
            held = await desk.claim(worker, 40)
            flipped = Held(held.session, 1, held.ids[::-1], held.epochs)
            every = {"run_ms": bytes(160), "results": None, "errors": "e", "tracebacks": None, "delays": 3600.0}
            async with asyncio.TaskGroup() as group:
                group.create_task(desk.settling.settle(kind, held.batch(**every)))
                group.create_task(other.settling.settle(again, flipped.batch(**every)))
                group.create_task(third.settling.start(*flipped.blobs, held.session.bytes))
                group.create_task(third.sessions.release(held.session, 1, *held.blobs))
                group.create_task(cancel(held))
            assert await desk.rows("select from tasks_live where status in ('QUEUED', 'RUNNING')") == []


async def test_hello_and_the_reapers_beside_settles_never_deadlock(desk: Desk, dsn: str) -> None:
    async with opened(dsn) as other, opened(dsn) as third:
        for _ in range(20):
            held = await desk.held(30)
            flipped = Held(held.session, 1, held.ids[::-1], held.epochs)
            async with asyncio.TaskGroup() as group:
                group.create_task(desk.hello(held.session, flipped, resumed=True))
                group.create_task(other.settling.settle(COMPLETED, held.done()))
                group.create_task(third.sessions.take_back())
                group.create_task(other.sessions.force_cancels(grace=0))
            assert len(await desk.rows("select from attempts")) == 0
            await desk.db.execute("truncate tasks_live")
