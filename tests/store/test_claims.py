"""Claims: who gets what, how much of it, and that nobody gets it twice."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from store.desk import Desk, T, opened, pairs

from taskrunner.domain.lanes import BEGINNING, NIL, Lanes, Mark, Pick, Serves
from taskrunner.domain.task import Lane
from taskrunner.sdk.context import POSTGRES_EPOCH
from taskrunner.store.claims import Seat
from taskrunner.store.settling import COMPLETED
from taskrunner.wire.columns import floats, ints, longs

SERVES = Serves((("t", 5, 300.0),), None)


async def test_a_claim_hands_out_the_whole_task_and_its_fence(desk: Desk) -> None:
    (own,) = await desk.create(max_attempts=2, timeout=1.5)
    (plain,) = await desk.create(payload='{"ü": 1}', delay=-5)
    seat = await desk.worker()
    (claimed,), took = await desk.take([seat._replace(free=5)])
    assert (claimed.session, claimed.stream, claimed.queue, claimed.task_type, claimed.n) == (seat.session, 1, "default", "t", 2)
    held = pairs(seat, [claimed])
    at = {id_: n for n, id_ in enumerate(held.ids)}
    assert held.epochs == [1, 1]
    assert ints(claimed.attempts) == (1, 1)
    assert [ints(claimed.max_attempts)[at[id_]] for id_ in (own, plain)] == [2, 5]
    assert [floats(claimed.timeouts)[at[id_]] for id_ in (own, plain)] == [1.5, 300.0]
    assert claimed.payloads[at[plain]] == '{"ü": 1}'.encode()
    row = await desk.row(plain)
    assert (row["status"], row["session"], row["stream"], row["epoch"], row["attempt"]) == ("QUEUED", seat.session, 1, 1, 1)
    assert (row["max_attempts"], row["timeout"]) == (5, 300.0)
    assert longs(claimed.run_ats)[at[plain]] == (row["run_at"] - POSTGRES_EPOCH) // timedelta(microseconds=1)
    assert took[T].n == 2
    assert took[T].mark == Mark((await desk.row(own))["run_at"], own)


async def test_only_lanes_that_were_asked_for_are_claimed(desk: Desk) -> None:
    await desk.create(task_type="u")
    await desk.create(queue="q")
    await desk.create(priority=1)
    (ours,) = await desk.create()
    held = await desk.claim(await desk.worker(), 10)
    assert held.ids == [ours]


async def test_only_what_is_due_is_claimed(desk: Desk) -> None:
    await desk.create(delay=3600)
    assert (await desk.claim(await desk.worker(), 10)).ids == []


async def test_a_claim_ahead_takes_what_will_be_due_by_then_and_no_more(desk: Desk) -> None:
    (soon,), _ = await desk.create(delay=30), await desk.create(delay=90)
    seat = (await desk.worker())._replace(free=10)
    claimed, took = await desk.claims.claim([Pick(T, BEGINNING, 10, 5, 300.0)], [seat], ahead=60.0)
    assert pairs(seat, claimed).ids == [soon]
    assert took[T].mark.id == soon


@pytest.mark.parametrize("column", ["key = 'k'", "blocked = true", "crashes = 1"])
async def test_what_the_index_leaves_out_is_not_claimed(desk: Desk, column: str) -> None:
    await desk.create()
    await desk.db.execute(f"update tasks_live set {column}")
    assert (await desk.claim(await desk.worker(), 10)).ids == []
    assert await desk.looks.find() == []
    assert await desk.claims.peek([(T, BEGINNING)]) == []
    assert await desk.looks.sweep([(T, BEGINNING.run_at, Mark(await desk.now(), NIL))]) == []


async def test_lanes_are_taken_in_the_order_given_and_each_no_further_than_its_limit(desk: Desk) -> None:
    lanes = [Lane(f"q{n}", "t", 2) for n in range(3)]
    for lane in lanes:
        await desk.create(5, queue=lane.queue)
    seat = (await desk.worker())._replace(free=10)
    _, took = await desk.take([seat], lanes[2], lanes[0], lanes[1], limit=4)
    assert [(lane.queue, took[lane].n) for lane in (lanes[2], lanes[0], lanes[1])] == [("q2", 4), ("q0", 4), ("q1", 2)]


async def test_within_a_lane_the_earliest_goes_first(desk: Desk) -> None:
    ids = [(await desk.create(delay=-delay))[0] for delay in (10, 30, 20)]
    seat = await desk.worker()
    assert [(await desk.claim(seat, 1)).ids[0] for _ in ids] == [ids[1], ids[2], ids[0]]


async def test_seats_are_dealt_round_and_never_more_are_claimed_than_there_are(desk: Desk) -> None:
    await desk.create(50)
    seats = [(await desk.worker())._replace(free=free) for free in (1, 5, 2)]
    claimed, _ = await desk.take(seats)
    assert [len(pairs(seat, claimed).ids) for seat in seats] == [1, 5, 2]
    assert await desk.rows("select count(*) as n from tasks_live where status = 'QUEUED'") == [{"n": 8}]


async def test_too_few_tasks_are_spread_over_the_sessions(desk: Desk) -> None:
    await desk.create(3)
    seats = [(await desk.worker())._replace(free=100) for _ in range(3)]
    claimed, _ = await desk.take(seats)
    assert [len(pairs(seat, claimed).ids) for seat in seats] == [1, 1, 1]


async def test_a_thousand_tasks_of_one_instant_are_claimed_to_the_last(desk: Desk) -> None:
    at = await desk.now()
    ids = await desk.create(1000, run_at=at)
    lanes, seat, got = Lanes(), (await desk.worker())._replace(free=70), Counter[UUID]()
    lanes.found(T, run_at=at, due_at=0, now=0)
    while picks := lanes.choose(SERVES, 70, 1.0):
        claimed, took = await desk.claims.claim(picks, [seat])
        got.update(pairs(seat, claimed).ids)
        lanes.claimed(picks, took, full=sum(one.n for one in claimed) >= 70, now=1.0)
    assert got == Counter(ids)


async def test_a_claim_looks_behind_its_mark_only(desk: Desk) -> None:
    (early,) = await desk.create(delay=-60)
    (late,) = await desk.create(delay=-10)
    row = await desk.row(early)
    seat = await desk.worker()
    assert (await desk.claim(seat, 10, mark=Mark(row["run_at"], early))).ids == [late]
    assert (await desk.claim(seat, 10, mark=Mark(row["run_at"], NIL))).ids == [early]


async def test_what_was_committed_late_is_found_before_the_mark(desk: Desk) -> None:
    """A transaction that took long: its task lies before the mark by then."""
    at = await desk.now() - timedelta(seconds=1)
    (shown,) = await desk.create(run_at=at + timedelta(milliseconds=500))
    mark = Mark(at + timedelta(milliseconds=500), shown)
    async with desk.db.transaction():
        await desk.db.execute("insert into tasks_live (task_type, payload, run_at) values ('t', '1', %s)", (at,))
        seat = await desk.worker()
        assert (await desk.claim(seat, 10)).ids == [shown]
        assert await desk.looks.find() == []
    assert (await desk.claim(seat, 10, mark=mark)).ids == []
    assert await desk.claims.peek([(T, mark)]) == []
    assert await desk.looks.sweep([(T, at - timedelta(seconds=1), mark)]) == [(T, at)]
    assert await desk.looks.sweep([(T, at + timedelta(microseconds=1), mark)]) == []
    ((lane, found_at, due_in),) = await desk.looks.find()
    assert (lane, found_at) == (T, at)
    assert -60 < due_in < 0
    assert len((await desk.claim(seat, 10, mark=Mark(found_at, NIL))).ids) == 1


async def test_find_names_each_lane_once_with_its_first_task(desk: Desk) -> None:
    at = await desk.now()
    for lane in (Lane("a", "t", 2), Lane("a", "t", 3), Lane("a", "u", 1), Lane("b", "t", 2)):
        for delay in (2000, 1000):
            await desk.create(run_at=at + timedelta(seconds=delay), queue=lane.queue, task_type=lane.task_type, priority=lane.priority)
    found = await desk.looks.find()
    assert [lane for lane, _, _ in found] == [Lane("a", "t", 2), Lane("a", "t", 3), Lane("a", "u", 1), Lane("b", "t", 2)]
    assert {run_at for _, run_at, _ in found} == {at + timedelta(seconds=1000)}
    assert all(900 < due_in <= 1000 for _, _, due_in in found)


@pytest.mark.parametrize("racers", [2, 3])
async def test_racing_claimers_hand_out_every_task_once(desk: Desk, dsn: str, racers: int) -> None:
    ids = await desk.create(1000)
    got: Counter[UUID] = Counter()

    async def race(racer: Desk) -> None:
        seat = await racer.worker()
        while True:
            held = await racer.claim(seat, 37)
            got.update(held.ids)
            if not held.ids and not await racer.claims.peek([(T, BEGINNING)]):
                return

    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(opened(dsn)) for _ in range(racers)]
        async with asyncio.TaskGroup() as group:
            for other in others:
                group.create_task(race(other))
    assert got == Counter(ids)
    assert await desk.rows("select distinct epoch from tasks") == [{"epoch": 1}]


async def test_a_task_that_somebody_has_locked_is_passed_over_and_stays_to_be_found(desk: Desk) -> None:
    ids = await desk.create(3, run_at=await desk.now())
    seat = await desk.worker()
    async with desk.db.transaction():
        await desk.db.execute("select from tasks_live where id = %s for update", (ids[1],))
        held = await desk.claim(seat, 10)
        assert set(held.ids) == {ids[0], ids[2]}
        assert len(await desk.claims.peek([(T, BEGINNING)])) == 1
    assert (await desk.claim(seat, 10)).ids == [ids[1]]


async def test_nothing_is_claimed_for_a_dead_session_an_old_stream_or_a_stranger(desk: Desk) -> None:
    (id_,) = await desk.create()
    dead, old = await desk.worker(), await desk.worker()
    await desk.sessions.close_session(dead.session, dead.stream)
    await desk.hello(old.session, resumed=True)
    for seat in (dead, old, Seat(uuid4(), 1, 1)):
        assert (await desk.claim(seat, 1)).ids == []
    assert await desk.statuses([id_]) == ["PENDING"]
    assert (await desk.claim(old._replace(stream=2), 1)).ids == [id_]


async def suspects(desk: Desk, n: int, crashes: int = 1) -> list[UUID]:
    ids = await desk.create(n)
    await desk.db.execute("update tasks_live set crashes = %s, max_attempts = 5, timeout = 60 where id = any(%s)", (crashes, ids))
    return ids


async def test_tasks_that_lost_a_worker_come_back_by_a_slow_start(desk: Desk) -> None:
    """As many that are not known to run as run already, or one: so the worst of them takes few along, and a hundred are back soon."""
    await suspects(desk, 40)
    seats = [(await desk.worker())._replace(free=10) for _ in range(2)]
    got = []
    for _ in range(5):
        claimed = await desk.claims.claim_suspects(SERVES, seats)
        assert await desk.claims.claim_suspects(SERVES, seats) == []
        by_seat = [pairs(seat, claimed) for seat in seats]
        got.append([len(held.ids) for held in by_seat])
        for held in by_seat:
            await desk.settling.start(*held.blobs, held.session.bytes)
    assert got == [[1, 1], [1, 1], [2, 2], [4, 4], [8, 8]]
    assert sum(one.n for one in await desk.claims.claim_suspects(SERVES, [seats[0]._replace(free=3)])) == 3


async def test_one_that_is_over_before_it_is_known_to_run_makes_room_for_one(desk: Desk) -> None:
    await suspects(desk, 3)
    seat = (await desk.worker())._replace(free=10)
    for _ in range(3):
        held = pairs(seat, await desk.claims.claim_suspects(SERVES, [seat]))
        assert len(held.ids) == 1
        await desk.settling.settle(COMPLETED, held.done())
    assert await desk.claims.claim_suspects(SERVES, [seat]) == []


async def test_tasks_that_lost_two_workers_come_alone_until_they_are_over(desk: Desk) -> None:
    twice = await suspects(desk, 3, crashes=2)
    once = await suspects(desk, 3)
    seats = [(await desk.worker())._replace(free=10) for _ in range(2)]
    first = await desk.claims.claim_suspects(SERVES, seats, alone=True)
    assert len(first) == 2
    assert {one.session for one in first} == {seat.session for seat in seats}
    held = pairs(seats[0], first)
    assert set(held.ids) < set(twice)
    await desk.settling.start(*held.blobs, held.session.bytes)
    assert await desk.claims.claim_suspects(SERVES, seats, alone=True) == []
    beside = await desk.claims.claim_suspects(SERVES, seats)
    assert [one.session for one in beside] == [seats[0].session], "nobody comes beside one that is not known to run"
    other = pairs(seats[0], beside)
    assert set(other.ids) < set(once)
    await desk.settling.settle(COMPLETED, held.done())
    assert await desk.claims.claim_suspects(SERVES, seats, alone=True) == [], "nor does it beside another one that is not"
    await desk.settling.start(*other.blobs, other.session.bytes)
    (last,) = await desk.claims.claim_suspects(SERVES, seats, alone=True)
    assert last.session == seats[0].session


async def test_suspects_are_claimed_where_they_are_served_and_due(desk: Desk) -> None:
    await suspects(desk, 1)
    seat = await desk.worker()
    assert await desk.claims.claim_suspects(Serves((("u", 5, 1.0),), None), [seat]) == []
    assert await desk.claims.claim_suspects(Serves((("t", 5, 1.0),), frozenset({"other"})), [seat]) == []
    ((name, due_in),) = await desk.looks.find_suspects()
    assert name == "t"
    assert due_in < 0
    await desk.db.execute("update tasks_live set run_at = clock_timestamp() + interval '1 hour'")
    assert await desk.claims.claim_suspects(SERVES, [seat]) == []
    await desk.db.execute("update tasks_live set run_at = clock_timestamp()")
    assert len(await desk.claims.claim_suspects(Serves((("t", 5, 1.0),), frozenset({"default"})), [seat])) == 1
