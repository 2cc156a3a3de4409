"""The lookout against the real store: what hints did not say, it finds."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from time import monotonic
from uuid import uuid4

import pytest
import structlog
from store.desk import Desk, T, opened

from taskrunner.domain.lanes import Lanes, Mark, Serves, Took
from taskrunner.domain.task import Lane
from taskrunner.scheduler.delivery import Delivery
from taskrunner.scheduler.dispatch import Dispatcher
from taskrunner.scheduler.lookout import SHARE, Lookout
from taskrunner.scheduler.roster import Roster, Session
from taskrunner.store.claims import PLANS, Looks
from taskrunner.store.pool import Line

SERVES = Serves((("t", 5, 300.0),), None)
NEVER = float("inf")


@pytest.fixture
async def desk(dsn: str) -> AsyncIterator[Desk]:
    async with opened(dsn) as it:
        yield it


def watching(desk: Desk, *, workers: int = 1) -> tuple[Lookout, Lanes, Dispatcher]:
    roster, lanes = Roster(), Lanes()
    for _ in range(workers):
        roster.add(Session(id=uuid4(), stream=1, name="w", serves=SERVES, slots=10, prefetch=0))
    dispatcher = Dispatcher(desk.claims, desk.claims, roster, lanes, Delivery(roster, undelivered=lambda _: None))
    return Lookout(desk.looks, roster, lanes, dispatcher), lanes, dispatcher


def passed(lanes: Lanes, mark: Mark) -> None:
    """As if everything up to ``mark`` had been claimed, and nothing was left."""
    lanes.found(T, run_at=mark.run_at, due_at=0.0, now=0.0)
    picks = lanes.choose(SERVES, 10, 1.0)
    lanes.claimed(picks, {T: Took(1, 10, mark)}, full=False, now=1e9)
    assert lanes.choose(SERVES, 10, 1.0) == []


async def test_a_pass_finds_every_lane_nobody_hinted_at(desk: Desk) -> None:
    await desk.create()
    lookout, lanes, dispatcher = watching(desk)
    await lookout.run_once()
    assert [pick.lane for pick in lanes.choose(SERVES, 10, NEVER)] == [T]
    assert dispatcher._wake.is_set()


async def test_without_workers_nothing_is_asked(desk: Desk) -> None:
    await desk.create()
    lookout, lanes, _ = watching(desk, workers=0)
    await desk.looks.close()
    await lookout.run_once()
    assert lanes.choose(SERVES, 10, NEVER) == []


@pytest.mark.parametrize("age", [1, 100, 5_000, 100_000, 10_000_000])
async def test_where_finding_is_dear_a_late_commit_before_the_mark_is_found_by_sweeping(desk: Desk, age: int) -> None:
    now = await desk.now()
    lookout, lanes, _ = watching(desk)
    passed(lanes, Mark(now, uuid4()))
    lookout._find_at = NEVER
    for _ in range(3):
        await lookout.run_once()
    assert lanes.choose(SERVES, 10, NEVER) == []
    at = now - timedelta(seconds=age)
    await desk.create(run_at=at)
    passes = 0
    while not (picks := lanes.choose(SERVES, 10, NEVER)):
        await lookout.run_once()
        passes += 1
        assert passes < 100
    assert picks[0].mark.run_at == at
    assert passes == 1 or age > 2


async def test_where_finding_is_dear_a_task_behind_the_mark_is_found_in_the_next_pass(desk: Desk) -> None:
    mark = Mark(await desk.now(), uuid4())
    lookout, lanes, dispatcher = watching(desk)
    passed(lanes, mark)
    lookout._find_at = NEVER
    await lookout.run_once()
    assert not dispatcher._wake.is_set()
    await desk.create(run_at=mark.run_at + timedelta(hours=1))
    await desk.create(run_at=mark.run_at)  # the same instant as that of the last one that was claimed
    await lookout.run_once()
    assert dispatcher._wake.is_set()
    (pick,) = lanes.choose(SERVES, 10, monotonic())
    assert pick.mark.run_at == mark.run_at


async def test_looking_ahead_is_made_less_often_where_it_is_dear(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    lookout, lanes, _ = watching(desk)
    passed(lanes, Mark(await desk.now(), uuid4()))
    lookout._find_at = NEVER
    peeks = []
    peek = desk.looks.peek

    async def slow(asked: list[tuple[Lane, Mark]]) -> list[tuple[Lane, float]]:
        peeks.append(asked)
        await asyncio.sleep(0.05)
        return await peek(asked)

    monkeypatch.setattr(desk.looks, "peek", slow)
    for _ in range(3):
        await lookout.run_once()
    assert len(peeks) == 1
    assert lookout._peek_at - asyncio.get_running_loop().time() > 0.05 * (SHARE - 1) - 1


async def test_a_look_that_the_database_gives_up_keeps_nobody_from_the_rest(desk: Desk) -> None:
    await desk.create(run_at=await desk.now())
    await desk.db.execute("update tasks_live set crashes = 1, attempt = 1, max_attempts = 5, timeout = 30")
    await desk.db.execute("insert into tasks_live (task_type, queue, payload) select 't', 'q' || n, '1' from generate_series(1, 40000) n")
    line = Line(desk.store.pool, setup=f"{PLANS}; set statement_timeout = '50ms'")
    desk.looks = Looks(line)
    lookout, _, dispatcher = watching(desk)
    with structlog.testing.capture_logs() as logs:
        await lookout.run_once()
    assert [log["event"] for log in logs] == ["looking for tasks took too long, and will be rare"]
    assert [*dispatcher._suspects] == ["t"]
    assert lookout._find_at > asyncio.get_running_loop().time() + SHARE * 0.05 - 1
    await line.close()


async def test_a_call_to_look_makes_the_next_pass_a_full_one(desk: Desk) -> None:
    lookout, lanes, _ = watching(desk)
    lookout._find_at = NEVER
    await desk.create()
    await lookout.run_once()
    assert lanes.choose(SERVES, 10, NEVER) == []
    lookout.look()
    await lookout.run_once()
    assert len(lanes.choose(SERVES, 10, NEVER)) == 1


async def test_suspects_are_told_to_the_dispatcher_with_the_first_of_each_type(desk: Desk) -> None:
    await desk.create(2)
    await desk.db.execute("update tasks_live set crashes = 1")
    lookout, _, dispatcher = watching(desk)
    await lookout.run_once()
    assert [*dispatcher._suspects] == ["t"]
    await desk.db.execute("truncate tasks_live")
    await lookout.run_once()
    assert dispatcher._suspects == {}
