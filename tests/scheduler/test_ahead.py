"""Tasks that are for later: claimed a moment before they are due, and sent when they are."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from scheduler.workman import House, Workman

from taskrunner.domain.task import NewTask
from taskrunner.scheduler import dispatch, role
from taskrunner.sdk.context import POSTGRES_EPOCH
from taskrunner.store import queries
from taskrunner.store.claims import Claims
from taskrunner.wire.columns import ID, ints, longs, split


async def create(house: House, times: list[datetime]) -> None:
    await house.store.create([NewTask(task_type="t", payload="1", run_at=at) for at in times])


async def early_by(man: Workman, n: int) -> list[float]:
    """How many seconds before its time each of ``n`` tasks came; the server's clock is ours."""
    early: list[float] = []
    while len(early) < n:
        tasks = await man.hear_a("tasks")
        now = time.time()
        early += [(POSTGRES_EPOCH + timedelta(microseconds=at)).timestamp() - now for at in longs(tasks.run_ats)]
    return early


async def claimed_before(house: House) -> list[bool]:
    """Of the tasks that are held, which were claimed before they were due."""
    async with house.store.pool.connection() as connection:
        rows = await (await connection.execute("select updated_at < run_at from tasks_live where status = 'QUEUED'")).fetchall()
    return [row[0] for row in rows]


async def test_a_task_for_later_starts_when_it_is_due(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "PERIOD", 60.0)  # nobody else looks
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    await create(house, [datetime.now(UTC) + timedelta(seconds=0.7)])
    (early,) = await early_by(man, 1)
    assert -2 < early <= 0


async def test_they_are_claimed_before_they_are_due_and_never_sent_before(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "AHEAD", 0.1)  # so that a slow machine has the time to be wrong
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=100)
    begins = datetime.now(UTC) + timedelta(seconds=0.5)
    await create(house, [begins + timedelta(milliseconds=17 * n) for n in range(60)])
    early = await early_by(man, 60)
    assert max(early) <= 0, early
    assert any(await claimed_before(house)), "a busy machine may be too late for many, and not for all"


async def test_those_of_one_moment_come_together(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=100)
    begins = datetime.now(UTC) + timedelta(seconds=0.5)
    await create(house, [begins + timedelta(microseconds=9 * n) for n in range(100)])
    tasks = await man.take(100)
    assert len(split(tasks.ids, ID)) == 100, "in one message"


async def test_they_go_out_even_if_nobody_can_say_what_time_it_is(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks between the claim and the look at the clock."""
    monkeypatch.setattr(dispatch, "AHEAD", 0.04)  # a slow machine may be late, but not for all of them
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    broken = replace(queries.queries()["clock"], text="select pg_terminate_backend(pg_backend_pid())")
    monkeypatch.setitem(queries.queries(), "clock", broken)
    begins = datetime.now(UTC) + timedelta(seconds=0.3)
    await create(house, [begins + timedelta(milliseconds=50 * n) for n in range(10)])
    async with asyncio.timeout(5):
        assert max(await early_by(man, 10)) <= 0
    assert any(await claimed_before(house))


async def test_they_hold_no_places_while_the_clock_of_the_database_is_an_hour_late(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is put back between the claim and the look at it."""
    asked: list[datetime] = []

    async def clock(claims: Claims) -> datetime:
        asked.append(await real(claims))
        return asked[-1] - timedelta(hours=1)

    real = Claims.clock
    monkeypatch.setattr(dispatch, "AHEAD", 0.1)  # so that a slow machine claims ahead, too
    monkeypatch.setattr(Claims, "clock", clock)
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=1)
    await create(house, [datetime.now(UTC) + timedelta(seconds=0.3)])
    async with asyncio.timeout(5):
        tasks = await man.take()
    assert asked
    assert ints(tasks.attempts) == (1,)
