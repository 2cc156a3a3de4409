"""The days of tasks_finished and attempts: made ahead, and dropped whole beside readers and writers."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime, timedelta

import psycopg
import pytest
from store.desk import Desk, opened, until_blocked
from structlog.testing import capture_logs

from taskrunner.domain.errors import Unavailable
from taskrunner.store import leaves
from taskrunner.store.settling import COMPLETED

DAY = 86_400.0
WEEK = 7 * DAY


async def attached(desk: Desk, parent: str = "tasks_finished") -> list[str]:
    rows = await desk.rows("select inhrelid::regclass::text as name from pg_inherits where inhparent = %s::regclass order by 1", parent)
    return [row["name"] for row in rows]


async def exists(desk: Desk, name: str) -> bool:
    (row,) = await desk.rows("select to_regclass(%s) is not null as there", name)
    return bool(row["there"])


async def old_leaf(desk: Desk, parent: str, days: int) -> str:
    """The leaf of a day long past."""
    day = (await desk.now() - timedelta(days=days)).date()
    async with desk.store.pool.connection() as connection:
        await leaves._add(connection, parent, day)
    return leaves.leaf(parent, day)


async def test_leaves_reach_from_yesterday_a_week_ahead_and_end_at_midnight_utc(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    today = (await desk.now()).date()
    for parent in ("tasks_finished", "attempts"):
        assert await attached(desk, parent) == [leaves.leaf(parent, today + timedelta(days=n)) for n in range(-1, 8)]
    await desk.db.execute("set timezone = 'UTC'")
    (bound,) = await desk.rows(
        "select pg_get_expr(relpartbound, oid) as bound from pg_class where relname = %s", leaves.leaf("tasks_finished", today)
    )
    assert bound["bound"] == f"FOR VALUES FROM ('{today} 00:00:00+00') TO ('{today + timedelta(days=1)} 00:00:00+00')"


async def test_a_leaf_has_every_index_and_check_of_its_parent(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    (leaf, *_) = await attached(desk)
    count = "select count(*) as n from pg_index where indrelid = %s::regclass"
    assert await desk.rows(count, leaf) == await desk.rows(count, "tasks_finished") != [{"n": 0}]
    checks = "select count(*) as n from pg_constraint where contype = 'c' and conrelid = %s::regclass"
    assert await desk.rows(checks, leaf) == await desk.rows(checks, "tasks_finished")


async def test_making_leaves_again_or_at_once_makes_no_more(desk: Desk, dsn: str) -> None:
    async with AsyncExitStack() as stack:
        desks = [desk, *[await stack.enter_async_context(opened(dsn)) for _ in range(2)]]
        async with asyncio.TaskGroup() as group:
            for one in desks:
                group.create_task(one.upkeep.make_leaves())
        await desk.upkeep.make_leaves()
    assert len(await attached(desk)) == len(await attached(desk, "attempts")) == 9


async def test_making_a_leaf_waits_for_no_reader_and_stops_none(desk: Desk) -> None:
    """PARTITION OF would wait for the open reader, and every settle would queue behind that."""
    async with desk.db.transaction():
        await desk.db.execute("select from tasks")
        await desk.db.execute("select from attempts")
        async with asyncio.timeout(0.9):  # lock_timeout is 1 s
            await desk.upkeep.make_leaves()
    held = await desk.held()
    await desk.settling.settle(COMPLETED, held.done())


async def test_only_days_past_retention_are_dropped(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    kept, dropped = await old_leaf(desk, "tasks_finished", 7), await old_leaf(desk, "tasks_finished", 8)
    assert await desk.upkeep.drop_leaves(retention=WEEK) == [dropped]
    assert not await exists(desk, dropped)
    assert kept in await attached(desk)
    assert len(await attached(desk)) == 10
    assert await desk.upkeep.drop_leaves(retention=WEEK) == []


async def test_attempts_stay_while_a_live_task_may_have_rows_there(desk: Desk) -> None:
    leaf = await old_leaf(desk, "attempts", 20)
    (id_,) = await desk.create(delay=3600)
    await desk.db.execute("update tasks_live set created_at = clock_timestamp() - interval '20 days'")
    assert await desk.upkeep.drop_leaves(retention=WEEK) == []
    await desk.store.cancel(id_)
    assert await desk.upkeep.drop_leaves(retention=WEEK) == [leaf]


async def test_whether_an_old_task_lives_is_found_out_in_more_than_the_time_of_a_statement(desk: Desk) -> None:
    """It reads the whole table, which is as large as what is scheduled."""
    async with desk.store.pool.connection() as connection, asyncio.TaskGroup() as group:
        await connection.execute("set statement_timeout = '200ms'")
        async with desk.db.transaction():
            await desk.db.execute("lock table tasks_live in access exclusive mode")
            asking = group.create_task(leaves._lives(connection, await desk.now()))
            await until_blocked(desk)
            await asyncio.sleep(0.3)
    assert not asking.result()


async def test_a_day_that_somebody_made_a_view_of_keeps_no_other_one(desk: Desk) -> None:
    kept, dropped = [await old_leaf(desk, "tasks_finished", days) for days in (20, 19)]
    attempts = await old_leaf(desk, "attempts", 20)
    await desk.db.execute(f"create view theirs as select id from {kept}")
    assert await desk.upkeep.drop_leaves(retention=WEEK) == [dropped, attempts]
    assert await exists(desk, kept)


async def test_dropping_beside_a_reader_stops_nobody_and_is_finished_later(desk: Desk, dsn: str) -> None:
    leaf = await old_leaf(desk, "tasks_finished", 20)
    held = await desk.held()
    async with await psycopg.AsyncConnection.connect(dsn) as reader:
        await reader.execute("select from tasks_finished")
        with capture_logs() as said:
            assert await desk.upkeep.drop_leaves(retention=WEEK) == []
        assert [one["leaf"] for one in said] == [leaf]
        assert await desk.rows("select inhdetachpending from pg_inherits where inhrelid = %s::regclass", leaf) == [
            {"inhdetachpending": True}
        ]
        async with asyncio.timeout(0.9):
            await desk.settling.settle(COMPLETED, held.done())
            assert await desk.store.get(held.ids[0]) is not None
    assert await desk.upkeep.drop_leaves(retention=WEEK) == [leaf]
    assert not await exists(desk, leaf)


@pytest.mark.parametrize("parent", leaves.PARENTS)
async def test_a_leaf_left_between_its_detach_and_its_drop_is_dropped_by_the_next_pass(desk: Desk, parent: str) -> None:
    leaf, kept = await old_leaf(desk, parent, 20), await old_leaf(desk, parent, 3)
    await desk.db.execute(f"create table {parent}_archive ()")
    for name in (leaf, kept):
        await desk.db.execute(f"alter table {parent} detach partition {name} concurrently")
    assert await desk.upkeep.drop_leaves(retention=WEEK) == [leaf]
    assert not await exists(desk, leaf)
    assert await exists(desk, kept)
    assert await exists(desk, f"{parent}_archive")


async def test_two_schedulers_that_drop_at_once_drop_each_leaf_once(desk: Desk, dsn: str) -> None:
    names = sorted([await old_leaf(desk, "tasks_finished", days) for days in range(20, 24)])
    dropped: list[str] = []

    async def drop(one: Desk) -> None:
        while await attached(one):
            try:
                dropped.extend(await one.upkeep.drop_leaves(retention=WEEK))
            except Unavailable:
                await asyncio.sleep(0.01)

    async with opened(dsn) as other, asyncio.TaskGroup() as group:
        group.create_task(drop(desk))
        group.create_task(drop(other))
    assert await attached(desk) == []
    assert not [name for name in names if await exists(desk, name)]
    assert len(dropped) == len(set(dropped))


async def minute(desk: Desk, ago: float) -> datetime:
    return (await desk.now() - timedelta(minutes=ago)).replace(second=0, microsecond=0)


async def test_summing_the_tally_keeps_its_sums_and_leaves_the_running_minute(desk: Desk) -> None:
    rows = [(await minute(desk, 3), "COMPLETED", 2, 10)] * 50 + [
        (await minute(desk, 3), "FAILED", 1, 5),
        (await minute(desk, 0), "COMPLETED", 7, 1),
    ] * 2
    async with desk.db.cursor() as cursor:
        await cursor.executemany("insert into tally values (%s, 'q', 't', %s, %s, %s)", rows)
    sums = "select outcome, sum(n)::int as n, sum(run_ms)::int as ms from tally group by outcome order by outcome"
    before = await desk.rows(sums)
    await desk.upkeep.sum_tally()
    assert await desk.rows(sums) == before
    assert await desk.rows("select n::int from tally order by n") == [{"n": 2}, {"n": 7}, {"n": 7}, {"n": 100}]
    await desk.upkeep.sum_tally()
    assert await desk.rows(sums) == before


async def test_a_minute_that_comes_to_nothing_leaves_no_row(desk: Desk) -> None:
    for n in (1, -1):
        await desk.db.execute("insert into tally values (%s, 'q', 't', 'FAILED', %s, 0)", (await minute(desk, 3), n))
    await desk.upkeep.sum_tally()
    assert await desk.rows("select from tally") == []


async def test_two_schedulers_that_sum_at_once_count_nothing_twice(desk: Desk, dsn: str) -> None:
    async with desk.db.cursor() as cursor:
        await cursor.executemany("insert into tally values (%s, 'q', 't', 'COMPLETED', 1, 0)", [(await minute(desk, 3),)] * 500)
    async with opened(dsn) as other, asyncio.TaskGroup() as group:
        for one in (desk, other, desk, other):
            group.create_task(one.upkeep.sum_tally())
    assert await desk.rows("select sum(n)::int as n from tally") == [{"n": 500}]


async def test_the_tally_is_kept_as_long_as_the_tasks(desk: Desk) -> None:
    for days in (6, 9):
        await desk.db.execute(
            "insert into tally values (%s, 'q', 't', 'COMPLETED', %s, 0)", (await desk.now() - timedelta(days=days), days)
        )
    await desk.upkeep.forget_counts(retention=WEEK)
    assert await desk.rows("select n from tally") == [{"n": 6}]


async def test_sessions_are_forgotten_an_hour_after_death_when_no_task_names_them(desk: Desk) -> None:
    living, fresh, old = [await desk.worker() for _ in range(3)]
    holding = await desk.held()
    for session, ago in ((fresh.session, "59 minutes"), (old.session, "61 minutes"), (holding.session, "61 minutes")):
        await desk.db.execute(
            "update sessions set status = 'DEAD', dead_at = clock_timestamp() - %s::interval where id = %s", (ago, session)
        )
    await desk.upkeep.forget_sessions()
    left = {row["id"] for row in await desk.rows("select id from sessions")}
    assert left == {living.session, fresh.session, holding.session}
    await desk.sessions.take_back()
    await desk.upkeep.forget_sessions()
    assert holding.session not in {row["id"] for row in await desk.rows("select id from sessions")}
