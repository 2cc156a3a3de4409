"""Tasks that are created in a scheduler's own process: which of them go straight to a worker, and what becomes of those that cannot."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from scheduler.workman import House, until

from taskrunner.domain.errors import BadTask, OutcomeUnknown
from taskrunner.domain.retry import Backoff
from taskrunner.domain.task import NewTask
from taskrunner.scheduler.roster import Session
from taskrunner.store.gates import Gates
from taskrunner.store.tasks import Store
from taskrunner.wire.columns import ID, floats, ints, split
from taskrunner.wire.pb.taskrunner.v1 import Outcome

# A commit that gets no answer: the server ends the connection in the middle of it.
LOST = """
create function lose() returns trigger language plpgsql as $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
create constraint trigger lose after insert on tasks_live deferrable initially deferred for each row execute function lose()
"""


async def create(store: Store, n: int = 1, **fields: Any) -> list[UUID]:
    made = await store.create([NewTask(**{"task_type": "t", "payload": json.dumps(number), **fields}) for number in range(n)])
    return [one.id for one in made]


def claims_of(store: Store) -> int:
    """How often a claim took something."""
    return sum(store.meter.claims.tasks.counts)


async def test_what_is_created_beside_an_idle_worker_is_born_claimed(house: House) -> None:
    address, _ = await house.scheduler(max_attempts=9, timeout=77)
    man = await house.workman(address)
    near = house.near[0]
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    special = {"max_attempts": 2, "timeout": 1.5, "traceparent": trace, "backoff": Backoff(kind="fixed", base=7.0)}
    (plain,), (own,) = await create(near, payload='{"b":1,  "a":2}'), await create(near, task_type="t", queue="q", **special)
    assert await house.statuses([plain, own]) == ["QUEUED", "QUEUED"], "before anybody could have claimed them"
    first, second = await man.take(), await man.take()
    assert (first.ids, second.ids) == (plain.bytes, own.bytes)
    assert first.payloads == [b'{"a": 2, "b": 1}'], "as a later attempt will have it"
    assert (first.queue, ints(first.attempts), ints(first.max_attempts), floats(first.timeouts)) == ("default", (1,), (9,), (77.0,))
    assert (second.queue, ints(second.max_attempts), floats(second.timeouts)) == ("q", (2,), (1.5,))
    assert (second.traceparents, json.loads(second.backoffs[0])["base"]) == (trace.encode(), 7.0)
    assert claims_of(near) == 0
    task = await house.store.get(plain)
    assert task is not None
    assert (task.attempt, task.max_attempts, task.timeout) == (1, 9, 77.0)
    assert (await man.report(Outcome.COMPLETED)).stale_ids == b""
    assert await house.statuses([plain, own]) == ["COMPLETED", "COMPLETED"]
    assert near.meter.created["default", "t"] == 1
    assert near.meter.starts["default", "t"].counts[0] == 1


async def test_it_can_be_tried_again_like_any_other(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    (id_,) = await create(house.near[0])
    await man.take()
    await man.report(Outcome.RETRY, errors=["e"], delays=bytes(8))
    again = await man.take()
    assert (again.ids, ints(again.attempts)) == (id_.bytes, (2,))
    assert [attempt.attempt for attempt in (await house.store.attempts([id_]))[id_]] == [1]


async def test_places_are_dealt_round_and_never_twice(house: House) -> None:
    address, _ = await house.scheduler()
    men = [await house.workman(address, slots=3) for _ in range(2)]
    near = house.near[0]
    made = await asyncio.gather(*[create(near, 2) for _ in range(3)])
    for man in men:
        await man.take(3)
    assert claims_of(near) == 0
    late = await create(near)
    assert await house.statuses(late) == ["PENDING"], "there is no place left"
    await men[0].report(Outcome.COMPLETED, [next(iter(men[0].held))])
    assert split((await men[0].take()).ids, ID) == [late[0].bytes]
    assert len({id_ for ids in made for id_ in ids} | {*late}) == 7


@pytest.mark.parametrize(
    "fields",
    [
        {"delay": 3600.0},
        {"run_at": datetime.now(UTC) + timedelta(hours=1)},
        {"expires_at": datetime.now(UTC) + timedelta(hours=1), "task_type": "u"},
        {"task_type": "u"},
        {"unique_key": "k", "task_type": "u"},
    ],
    ids=["delay", "run_at", "expires_at", "not served", "unique"],
)
async def test_what_is_not_for_now_or_not_for_these_workers_waits(house: House, fields: dict[str, Any]) -> None:
    address, _ = await house.scheduler()
    await house.workman(address)
    assert await house.statuses(await create(house.near[0], **fields)) == ["PENDING"]


async def test_all_of_a_batch_or_none(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address, slots=3)
    ids = await create(house.near[0], 4)
    assert "QUEUED" not in await house.statuses(ids[3:])
    await man.take(3)
    assert claims_of(house.near[0]) > 0
    assert sorted(await house.statuses(ids)) == ["PENDING", "QUEUED", "QUEUED", "QUEUED"]


async def test_nothing_goes_past_what_waits_already(house: House) -> None:
    """A better priority waits for the only slot; what is created when it becomes free must not have it."""
    address, _ = await house.scheduler()
    man = await house.workman(address, slots=1)
    near = house.near[0]
    await create(near)
    await man.take()
    (first,) = await create(near, priority=1)
    await asyncio.sleep(0.1)  # the dispatcher has found no place for it
    (session,) = [*house.rosters[0]]  # a slot that is free and not yet given to anybody
    session.slots = 2
    assert await house.statuses(await create(near, priority=4)) == ["PENDING"]
    await man.report(Outcome.COMPLETED)
    assert (await man.take()).ids == first.bytes


async def test_what_is_paused_waits(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    await Gates(house.store).close("queue", "default")
    await asyncio.sleep(1.1)  # that is what is promised
    kept, free = await create(house.near[0]), await create(house.near[0], queue="other")
    assert await house.statuses([*kept, *free]) == ["PENDING", "QUEUED"]
    assert (await man.take()).ids == free[0].bytes


async def test_for_a_session_that_is_over_it_waits_and_another_gets_it(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    async with house.store.pool.connection() as connection:
        await connection.execute("update sessions set status = 'DEAD', dead_at = now()")  # by another scheduler; ours has not heard
    (id_,) = await create(house.near[0])
    assert await house.statuses([id_]) == ["PENDING"]
    (session,) = [*house.rosters[0]]
    await until(lambda: no_places_taken(session))  # a claim that finds nobody there may be on its way
    man.cut()
    other = await house.workman(address)
    assert (await other.take()).ids == id_.bytes


async def test_a_task_that_the_database_refuses_takes_nobody_s_place(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address, slots=2)
    near = house.near[0]
    with pytest.raises(BadTask) as caught:
        await near.create([NewTask(task_type="t", payload="1"), NewTask(task_type="t", payload='"\\u0000"')])
    assert caught.value.index == 1
    ids = await create(near, 2)
    assert await house.statuses(ids) == ["QUEUED", "QUEUED"]
    await man.take(2)


async def test_a_commit_without_an_answer_sends_the_worker_away_to_say_what_it_holds(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    near = house.near[0]
    async with house.store.pool.connection() as connection:
        await connection.execute(LOST)
    with pytest.raises(OutcomeUnknown):
        await create(near)
    async with asyncio.timeout(3):
        assert (await man.hear_a("goodbye")).reason == "a claim for it may be lost"
    async with house.store.pool.connection() as connection:
        await connection.execute("drop trigger lose on tasks_live")
    (session,) = [*house.rosters[0]]
    assert (session.outstanding, session.taking) == (0, False)
    man.cut("work")
    await man.connect(address)
    ids = await create(near)
    assert (await man.take()).ids == ids[0].bytes


async def test_a_worker_that_left_meanwhile_never_had_it(house: House) -> None:
    """Its stream breaks while the task is being written: the claim is undone, and whoever comes gets the task."""
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    near = house.near[0]
    async with house.store.pool.connection() as connection, connection.transaction():
        await connection.execute("lock table sessions in access exclusive mode")  # the insert wants to read it
        creating = asyncio.create_task(create(near))
        await asyncio.sleep(0.1)
        man.cut("work")
        await asyncio.sleep(0.1)
    (id_,) = await creating
    man2 = await house.workman(address)
    tasks = await man2.take()
    assert tasks.ids == id_.bytes


async def test_a_scheduler_that_stops_gives_nothing_away(house: House) -> None:
    address, stop = await house.scheduler()
    man = await house.workman(address)
    near = house.near[0]
    stopping = asyncio.create_task(stop())
    await man.hear_a("goodbye")
    ids = await create(house.store)
    assert near.direct is None or await near.direct([NewTask(task_type="t", payload="1")]) is None
    man.cut()
    await stopping
    assert await house.statuses(ids) == ["PENDING"]


async def test_under_load_each_task_runs_once_by_whichever_way(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=5)
    near = house.near[0]

    async def creating() -> list[UUID]:
        return [id_ for _ in range(25) for id_ in await create(near, 2)]

    makers = asyncio.gather(*[creating() for _ in range(4)])
    seen: list[bytes] = []
    while len(seen) < 200:
        got = split((await man.hear_a("tasks")).ids, ID)
        seen += got
        man.held |= dict.fromkeys(got, (1).to_bytes(8, "big"))
        assert (await man.report(Outcome.COMPLETED)).stale_ids == b""
    made = [id_.bytes for ids in await makers for id_ in ids]
    assert sorted(seen) == sorted(made)

    async def finished() -> bool:
        return {*await house.statuses([UUID(bytes=id_) for id_ in seen])} == {"COMPLETED"}

    await until(finished)


async def test_nothing_is_given_away_while_a_claim_is_on_its_way(house: House) -> None:
    """It may fill every place: here it is for a suspect, which no lane knows of."""
    address, _ = await house.scheduler()
    man = await house.workman(address, slots=1)
    (first,) = await create(house.store, delay=3600)
    async with house.store.pool.connection() as connection, connection.transaction():
        await connection.execute("lock table sessions in access exclusive mode")  # a claim wants to read it
        async with house.store.pool.connection() as other:
            await other.execute("update tasks_live set crashes = 1, attempt = 1, max_attempts = 5, timeout = 9, run_at = now()")
        house.store.hints.look()
        await until(lambda: claim_waits(house))
        creating = asyncio.create_task(create(house.near[0]))
        done, _ = await asyncio.wait({creating}, timeout=0.5)
        assert done, "it asks for a session"
        (second,) = await creating
    assert split((await man.take()).ids, ID) == [first.bytes]
    assert await house.statuses([first, second]) == ["QUEUED", "PENDING"]


async def no_places_taken(session: Session) -> bool:
    return session.outstanding == 0


async def claim_waits(house: House) -> bool:
    """Whether a claim waits for a lock."""
    async with house.store.pool.connection() as connection:
        looked = await connection.execute(
            "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            " and query like '%lateral generate_series(1, least(s.free%'"
        )
        return await looked.fetchone() is not None
