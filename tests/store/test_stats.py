"""Counts over time and by error: what is written where things happen, what is summed, and that nothing else is."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from store.desk import Desk

from taskrunner.domain.errors import OutcomeUnknown, Unavailable
from taskrunner.domain.histogram import SECONDS
from taskrunner.domain.task import TaskFilter
from taskrunner.store.bulk import Bulks
from taskrunner.store.meter import MOST, OTHER, Meter
from taskrunner.store.minutes import Minutes
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR
from taskrunner.store.stats import Point, Stats

T = ("default", "t")
# An id as a task got it an hour ago.
EARLIER = """encode(overlay(uuid_send(id) placing
  substring(int8send((extract(epoch from now() - interval '1 hour') * 1000)::bigint) from 3) from 1 for 6), 'hex')::uuid"""


async def total(desk: Desk, **filters: Any) -> Point:
    """All that happened within an hour."""
    asked = {"queue": None, "task_type": None} | filters
    whole = Point()
    for _, point in await Stats(desk.store).points(60, 60, **asked):
        whole.add(point)
    return whole


def _numbers(point: Point) -> tuple[object, ...]:
    return point.created, point.completed, point.failed, point.cancelled, point.retried, point.starts.counts


async def messages(desk: Desk, window: float = 86_400, task_type: str | None = None) -> dict[str, int]:
    return {one.message: one.count for one in await Stats(desk.store).failures(window, task_type=task_type)}


async def sums(desk: Desk) -> None:
    await desk.store.minutes.flush()
    await desk.rows("update minutes set minute = minute - interval '3 minutes' returning n")
    await desk.upkeep.sum_tally()


async def test_what_happens_is_counted_by_queue_and_type(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    await desk.settling.settle(COMPLETED, (await desk.held(7)).done())
    await desk.settling.settle(ERROR, (await desk.held(3)).error(delay=60))
    await desk.settling.settle(ERROR, (await desk.held(2)).error(delay=None))
    await desk.settling.settle(CANCELLED, (await desk.held(1)).back())
    await desk.create(5, task_type="other", queue="q", delay=60)
    await desk.store.minutes.flush()
    found = await total(desk)
    assert (found.created, found.completed, found.failed, found.cancelled, found.retried) == (18, 7, 2, 1, 3)
    assert sum(found.starts.counts) == 13
    meter = desk.store.meter
    assert meter.ended == {(T, "COMPLETED"): 7, (T, "FAILED"): 2, (T, "CANCELLED"): 1}
    assert (meter.created, meter.retried) == ({T: 13, ("q", "other"): 5}, {T: 3})
    assert (await total(desk, queue="q")).created == (await total(desk, task_type="other")).created == 5
    nothing = await total(desk, queue="q", task_type="t")
    assert (nothing.created, nothing.completed, sum(nothing.starts.counts)) == (0, 0, 0)


async def test_how_late_tasks_are_claimed_is_kept_by_bucket(desk: Desk) -> None:
    await desk.create(100)
    await desk.rows(f"update tasks_live set run_at = now() - interval '4 seconds', id = {EARLIER} returning id")
    seat = await desk.worker()
    assert len((await desk.claim(seat, 60)).ids) == 60
    assert len((await desk.claim(seat, 60)).ids) == 40
    await desk.store.minutes.flush()
    found = await total(desk)
    assert found.starts.counts[SECONDS.index(5.0)] == 100 == sum(found.starts.counts)
    assert 2 <= (found.starts.quantile(0.5) or 0) <= 5
    assert desk.store.meter.starts["default", "t"].total == pytest.approx(400, rel=0.1)


async def test_a_task_whose_time_was_over_when_it_was_created_is_late_from_then_on(desk: Desk) -> None:
    await desk.held(3, run_at=datetime(2026, 2, 20, 10, tzinfo=UTC))
    await desk.store.minutes.flush()
    assert 0 < ((await total(desk)).starts.quantile(1) or 0) < 60


async def test_a_lost_worker_s_tasks_are_tried_again_and_those_that_never_started_are_not(desk: Desk) -> None:
    held = await desk.held(4, started=True)
    await desk.db.execute("update sessions set status = 'DEAD', dead_at = now() where id = %s", (held.session,))
    assert (await desk.sessions.take_back())[0] == 4
    unheard = await desk.held(2, task_type="u")
    await desk.rows("update sessions set stream = stream + 1 where id = %s returning id", unheard.session)
    assert (await desk.sessions.take_back())[0] == 2
    assert (await total(desk)).retried == 4


async def test_only_what_is_new_is_written_and_nothing_at_idle(desk: Desk) -> None:
    minutes = desk.store.minutes
    await minutes.flush()
    assert await desk.rows("select * from minutes") == []
    await desk.create(3)
    await minutes.flush()
    await minutes.flush()
    await desk.create(2)
    await minutes.flush()
    assert [(row["measure"], row["n"]) for row in await desk.rows("select measure, n from minutes order by n desc")] == [
        ("created", 3),
        ("created", 2),
    ]


async def test_the_loop_writes_a_few_seconds_after_something_happened(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.store.minutes.PERIOD", 0.05)
    minutes = Minutes(desk.store.pool, desk.store.meter)
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(minutes.run())
        desk.store.meter.create("q", "t", 1)
        while not await desk.rows("select from minutes where queue = 'q'"):
            await asyncio.sleep(0.01)
        loop.cancel()


async def test_counts_survive_a_database_that_is_away(desk: Desk) -> None:
    await desk.create(3)
    await desk.db.execute("alter table minutes rename to hidden")
    with pytest.raises(Unavailable):
        await desk.store.minutes.flush()
    await desk.db.execute("alter table hidden rename to minutes")
    await desk.store.minutes.flush()
    assert (await total(desk)).created == 3


async def test_counts_whose_commit_got_no_answer_are_not_written_twice(desk: Desk) -> None:
    await desk.create(3)
    await desk.db.execute("create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(30); return new; end'")
    await desk.db.execute("create trigger slow before insert on minutes for each row execute function slow()")
    async with asyncio.TaskGroup() as group:
        flush = group.create_task(lose(desk))
        while not await desk.rows(
            "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        ):
            await asyncio.sleep(0.01)
        await flush
    await desk.db.execute("drop trigger slow on minutes")
    await desk.store.minutes.flush()
    assert (await total(desk)).created == 0


async def lose(desk: Desk) -> None:
    with pytest.raises(OutcomeUnknown):
        await desk.store.minutes.flush()


def test_beyond_so_many_pairs_the_rest_is_one() -> None:
    meter = Meter()
    for n in range(MOST + 50):
        meter.create("q", f"t{n}", 1)
    meter.create("q", "t0", 1)
    meter.claim("q", "a new one", bytes(8), bytes(8), bytes(16))
    assert len(meter.created) == MOST + 1
    assert (meter.created[OTHER], meter.created["q", "t0"]) == (50, 2)
    assert [*meter.starts] == [OTHER]


async def test_sums_say_the_same_in_fewer_rows(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    for _ in range(3):
        held = await desk.held(2)
        await desk.settling.settle(ERROR, held.error(delay=None, reason="no disk"))
        await desk.store.minutes.flush()
    before = _numbers(await total(desk)), await messages(desk)
    (example,) = await Stats(desk.store).failures(3600)
    await sums(desk)
    assert (_numbers(await total(desk)), await messages(desk)) == before
    assert before[1] == {"no disk": 6}
    assert await Stats(desk.store).failures(3600) == [example]
    (counted,) = await desk.rows("select count(*) as rows, count(distinct (measure, bucket)) as kinds from minutes")
    assert counted["rows"] == counted["kinds"]
    assert await desk.rows("select n from failures") == [{"n": 6}]
    (settled,) = await desk.rows("select xmin::text from failures")
    await desk.upkeep.sum_tally()
    assert await desk.rows("select xmin::text from failures") == [settled]  # nothing is rewritten where there is nothing to sum


async def test_what_is_older_than_a_day_is_kept_by_the_hour(desk: Desk) -> None:
    old, new = "date_trunc('hour', now()) - interval '30 hours'", "now() - interval '2 hours'"
    for at in (f"{old} + interval '1 minute'", f"{old} + interval '59 minutes'", f"{old} + interval '61 minutes'", new):
        await desk.db.execute(f"insert into minutes (minute, queue, task_type, measure, n) values ({at}, 'q', 't', 'created', 3)".encode())
        await desk.db.execute(
            f"insert into tally (minute, queue, task_type, outcome, n, run_ms) values ({at}, 'q', 't', 'COMPLETED', 3, 9)".encode()
        )
    for _ in range(2):
        await desk.upkeep.fold()
        for table in ("minutes", "tally"):
            found = await desk.db.execute(f"select n, minute = date_trunc('hour', minute) as whole from {table} order by minute".encode())
            rows = await found.fetchall()
            assert [row["n"] for row in rows] == [6, 3, 3]
            assert all(row["whole"] for row in rows[:2])


async def test_days_that_were_kept_long_enough_are_forgotten(desk: Desk) -> None:
    await desk.rows(
        "insert into minutes (minute, queue, task_type, measure, n) values (now() - interval '9 days', 'q', 't', 'created', 1),"
        " (now(), 'q', 't', 'created', 1) returning n"
    )
    await desk.rows(
        "insert into failures (hour, task_type, message, n) values (now() - interval '9 days', 't', 'old', 1), (now(), 't', 'new', 1)"
        " returning n"
    )
    await desk.upkeep.forget_counts(retention=7 * 86_400)
    assert len(await desk.rows("select from minutes")) == 1
    assert await desk.rows("select message from failures") == [{"message": "new"}]


async def test_every_way_to_end_is_counted(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    meter = desk.store.meter
    (waiting,) = await desk.create(delay=60)
    assert await desk.store.cancel(waiting) is not None
    await desk.create(3, delay=60, queue="q")
    bulks = Bulks(desk.store)
    await bulks.begin("cancel", TaskFilter(queue="q"))
    while await bulks.run_once():
        pass
    held = await desk.held(1)
    await desk.store.cancel(held.ids[0])
    assert await desk.sessions.force_cancels(grace=0) == 1
    assert meter.ended == {(T, "CANCELLED"): 2, (("q", "t"), "CANCELLED"): 3}
    lost = await desk.held(4, attempts=1)
    await desk.rows("update sessions set lease_until = now() - interval '1 second' where id = %s returning id", lost.session)
    assert len(await desk.sessions.end_dead(longest=700)) == 1
    await desk.sessions.take_back()
    assert (meter.sessions_lost, meter.taken_back, meter.ended[T, "FAILED"]) == (1, 4, 4)


async def test_what_is_stale_or_refused_is_counted_and_nothing_of_it_ended(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    held = await desk.held(3)
    await desk.rows("update tasks_live set epoch = epoch + 1 where id = %s returning id", held.ids[0])
    await desk.settling.settle(COMPLETED, held.batch(results=["1", "{", "3"]))
    meter = desk.store.meter
    assert (meter.stale, meter.refused, meter.ended) == (1, 1, {(T, "COMPLETED"): 1})
    assert sum(meter.settles["complete_tasks"].tasks.counts) == sum(meter.claims.seconds.counts) == 1
    assert meter.settles["complete_tasks"].tasks.total == meter.claims.tasks.total == 3
