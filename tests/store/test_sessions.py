"""Sessions and their streams: Hello, leases, death, and who gets a task back."""

import asyncio
from uuid import UUID, uuid4

import pytest
from store.desk import Desk, Held, opened, until_blocked

from taskrunner.store.claims import Seat
from taskrunner.store.sessions import Accepted
from taskrunner.store.settling import COMPLETED, GIVEN_BACK

LONGEST = 700.0


async def column(desk: Desk, session: object, name: str) -> object:
    (row,) = await desk.rows("select * from sessions where id = %s", session)
    return row[name]


async def test_each_accepted_hello_is_a_new_stream(desk: Desk) -> None:
    seat = await desk.worker()
    assert seat.stream == 1
    assert await desk.hello(seat.session, resumed=True) == Accepted(2, b"", b"")
    assert await desk.hello(seat.session) == Accepted(3, b"", b"")  # the first Hello again: its answer was lost


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_hello_that_comes_after_a_later_one_is_late_and_does_not_count(desk: Desk, resumed: bool) -> None:
    session = uuid4()
    assert await desk.hello(session, stream=2) == Accepted(2, b"", b"")  # the first one never arrived
    assert await desk.hello(session, stream=4, resumed=resumed) == Accepted(4, b"", b"")
    await desk.create()
    assert (await desk.claim(Seat(session, 4, 1), 1)).ids
    for late in (4, 3):
        assert await desk.hello(session, stream=late, resumed=resumed) is None
    assert await desk.sessions.take_back() == (0, [])
    assert await desk.hello(session, resumed=resumed) == Accepted(5, b"", b"")  # a worker that does not count


async def test_a_dead_session_and_one_that_never_was_are_over(desk: Desk) -> None:
    seat = await desk.worker()
    await desk.sessions.close_session(seat.session, seat.stream)
    assert await desk.hello(seat.session, resumed=True) is None
    assert await desk.hello(seat.session) is None
    assert await desk.hello(uuid4(), resumed=True) is None


async def test_hello_keeps_what_it_names_and_learns_what_is_lost(desk: Desk) -> None:
    held = await desk.held(4)
    gone, given = Held(held.session, 1, held.ids[:1], [1]), Held(held.session, 1, held.ids[1:2], [1])
    await desk.settling.settle(COMPLETED, gone.done())
    await desk.settling.settle(GIVEN_BACK, given.back())
    named = Held(held.session, 1, [*held.ids[:3], uuid4()], [1, 1, 1, 1])
    accepted = await desk.hello(held.session, named, resumed=True)
    assert accepted is not None
    lost = {accepted.lost_ids[n : n + 16] for n in range(0, len(accepted.lost_ids), 16)}
    assert lost == {id_.bytes for id_ in (*named.ids[:2], named.ids[3])}
    assert accepted.lost_epochs == (1).to_bytes(8, "big") * 3
    assert [(await desk.row(id_))["stream"] for id_ in held.ids[2:]] == [2, 1]
    n, back = await desk.sessions.take_back()  # what it did not name, it never got
    assert (n, len(back)) == (1, 1)
    assert await desk.statuses(held.ids[2:]) == ["QUEUED", "PENDING"]


async def test_hello_takes_nothing_that_is_another_s_or_of_another_epoch(desk: Desk) -> None:
    held = await desk.held(2)
    other = await desk.worker()
    accepted = await desk.hello(other.session, held, resumed=True)
    assert accepted is not None
    assert len(accepted.lost_ids) == 32
    wrong = Held(held.session, 1, held.ids, [2, 2])
    accepted = await desk.hello(held.session, wrong, resumed=True)
    assert accepted is not None
    assert len(accepted.lost_ids) == 32
    assert {(await desk.row(id_))["stream"] for id_ in held.ids} == {1}


async def test_a_beat_renews_the_living_and_says_who_is_not(desk: Desk) -> None:
    living, dead = await desk.worker(lease=1), await desk.worker()
    await desk.sessions.close_session(dead.session, dead.stream)
    before = await column(desk, living.session, "lease_until")
    await lose_beat(desk, living.session)
    assert set(await desk.sessions.renew(dict.fromkeys([living.session, dead.session, uuid4()], 0.25), lease=100)) == {living.session}
    assert await column(desk, living.session, "lease_until") > before  # type: ignore[operator]  # both are times
    assert await column(desk, living.session, "beat_lost_at") is None
    assert (await column(desk, living.session, "version"), await column(desk, living.session, "lag")) == ("1.2.3", 0.25)


async def lose_beat(desk: Desk, session: UUID) -> None:
    """The Beat stream ends that renewed the session last."""
    renewed = await desk.sessions.renew({session: 0.0}, lease=60)
    await desk.sessions.lose_beat(session, renewed[session].at)


async def ended(desk: Desk) -> set[object]:
    return {session for session, _ in await desk.sessions.end_dead(longest=LONGEST)}


async def age(desk: Desk, session: object, **columns: float) -> None:
    """Move times of a session into the past, so that nobody has to wait for them."""
    for name, seconds in columns.items():
        await desk.db.execute(
            f"update sessions set {name} = clock_timestamp() - %s * interval '1 second' where id = %s", (seconds, session)
        )


async def test_a_session_dies_when_its_lease_is_over_and_not_before(desk: Desk) -> None:
    silent, living = await desk.worker(), await desk.worker()
    assert await ended(desk) == set()
    await age(desk, silent.session, lease_until=0.001)
    assert await desk.sessions.end_dead(longest=LONGEST) == [(silent.session, "w")]
    assert await ended(desk) == set()
    assert await column(desk, living.session, "status") == "LIVE"


@pytest.mark.parametrize(
    ("stream_lost", "beat_lost", "dies"), [(9.0, None, False), (None, 9.0, False), (9.0, 0.6, True), (9.0, 0.0, False), (0.0, 9.0, False)]
)
async def test_a_session_dies_early_when_both_connections_broke_half_a_second_ago(
    desk: Desk, stream_lost: float | None, beat_lost: float | None, dies: bool
) -> None:
    seat = await desk.worker()
    if stream_lost is not None:
        await desk.sessions.lose_stream(seat.session, seat.stream)
        await age(desk, seat.session, stream_lost_at=stream_lost)
    if beat_lost is not None:
        await lose_beat(desk, seat.session)
        await age(desk, seat.session, beat_lost_at=beat_lost)
    assert await ended(desk) == ({seat.session} if dies else set())


async def test_a_connection_that_is_back_undoes_its_loss(desk: Desk) -> None:
    for mend in (lambda s: desk.hello(s, resumed=True), lambda s: desk.sessions.renew({s: 0.0}, lease=60)):
        seat = await desk.worker()
        await desk.sessions.lose_stream(seat.session, seat.stream)
        await lose_beat(desk, seat.session)
        await age(desk, seat.session, stream_lost_at=9, beat_lost_at=9)
        await mend(seat.session)
        assert await ended(desk) == set()


async def test_the_end_of_a_beat_stream_says_nothing_when_another_one_has_renewed_since(desk: Desk) -> None:
    seat = await desk.worker()
    old = (await desk.sessions.renew({seat.session: 0.0}, lease=60))[seat.session]
    new = (await desk.sessions.renew({seat.session: 0.0}, lease=60))[seat.session]
    await desk.sessions.lose_beat(seat.session, old.at)
    assert await column(desk, seat.session, "beat_lost_at") is None
    await desk.sessions.lose_beat(seat.session, new.at)
    assert await column(desk, seat.session, "beat_lost_at") is not None


async def test_the_end_of_an_old_stream_says_nothing_about_the_new_one(desk: Desk) -> None:
    seat = await desk.worker()
    await desk.hello(seat.session, resumed=True)
    await desk.sessions.lose_stream(seat.session, 1)
    await desk.sessions.close_session(seat.session, 1)
    assert await column(desk, seat.session, "stream_lost_at") is None
    assert await column(desk, seat.session, "status") == "LIVE"


async def test_a_goodbye_ends_a_session_that_holds_nothing_and_no_other(desk: Desk) -> None:
    """The handlers of one that holds something may still run: its stream is lost, and no more."""
    idle, held = await desk.worker(), await desk.held()
    for session in (idle.session, held.session):
        await desk.sessions.close_session(session, 1)
    assert await column(desk, idle.session, "dead_at") is not None
    assert (await column(desk, held.session, "status"), await column(desk, held.session, "dead_at")) == ("LIVE", None)
    assert await column(desk, held.session, "stream_lost_at") is not None
    assert await desk.statuses(held.ids) == ["QUEUED"]


async def test_a_lease_from_far_in_the_future_is_none(desk: Desk) -> None:
    """The database's clock was put back: such a lease would hold its tasks for as long."""
    seat, usual = await desk.worker(lease=LONGEST + 60), await desk.worker(lease=LONGEST - 60)
    assert await ended(desk) == {seat.session}
    assert await column(desk, usual.session, "status") == "LIVE"


async def test_a_renewal_that_commits_first_saves_the_session(desk: Desk, dsn: str) -> None:
    seat = await desk.worker()
    await age(desk, seat.session, lease_until=1)
    async with opened(dsn) as other, desk.db.transaction():
        await desk.db.execute("update sessions set lease_until = clock_timestamp() + interval '1 minute' where id = %s", (seat.session,))
        async with asyncio.TaskGroup() as group:
            reap = group.create_task(ended(other))
            await until_blocked(other)
            await desk.db.execute("commit")
        assert reap.result() == set()


async def test_of_a_renewal_and_a_reap_at_once_exactly_one_wins(desk: Desk, dsn: str) -> None:
    async with opened(dsn) as other:
        for _ in range(30):
            seat = await desk.worker()
            await age(desk, seat.session, lease_until=1)
            async with asyncio.TaskGroup() as group:
                renew = group.create_task(desk.sessions.renew({seat.session: 0.0}, lease=60))
                reap = group.create_task(ended(other))
            assert (seat.session in renew.result()) != (seat.session in reap.result())


async def kill(desk: Desk, session: object) -> None:
    await desk.db.execute("update sessions set status = 'DEAD', dead_at = clock_timestamp() where id = %s", (session,))


async def test_tasks_of_a_dead_session_run_again_as_suspects(desk: Desk) -> None:
    held = await desk.held(2, started=True, priority=3)
    assert await desk.sessions.take_back() == (0, [])
    await kill(desk, held.session)
    n, (back,) = await desk.sessions.take_back()
    rows = [await desk.row(id_) for id_ in held.ids]
    assert (n, back.lane.priority, back.run_at) == (2, 3, min(row["run_at"] for row in rows))
    assert {(row["status"], row["session"], row["attempt"], row["crashes"], row["error"]) for row in rows} == {
        ("PENDING", None, 1, 1, "the worker was lost")
    }
    (attempt,) = (await desk.store.attempts(held.ids))[held.ids[0]]
    assert (attempt.outcome, attempt.attempt, attempt.worker) == ("LOST", 1, "w")
    assert await desk.sessions.take_back() == (0, [])


async def test_a_dead_session_s_unstarted_task_keeps_its_attempt_too(desk: Desk) -> None:
    """QUEUED says nothing about delivery: Started is written late, so it may have run."""
    held = await desk.held()
    await kill(desk, held.session)
    await desk.sessions.take_back()
    row = await desk.row(held.ids[0])
    assert (row["status"], row["attempt"], row["crashes"]) == ("PENDING", 1, 1)


async def test_what_the_worker_never_heard_of_gets_its_attempt_back(desk: Desk) -> None:
    held = await desk.held(2)
    await desk.settling.start(*Held(held.session, 1, held.ids[:1], [1]).blobs, held.session.bytes)
    await desk.hello(held.session, resumed=True)
    assert (await desk.sessions.take_back())[0] == 2
    started, unstarted = [await desk.row(id_) for id_ in held.ids]
    assert (started["status"], started["attempt"], started["crashes"]) == ("PENDING", 1, 1)
    assert (unstarted["status"], unstarted["attempt"], unstarted["crashes"], unstarted["error"]) == ("PENDING", 0, 0, None)
    assert len(await desk.rows("select from attempts")) == 1


async def test_the_last_attempt_lost_is_the_end(desk: Desk) -> None:
    held = await desk.held(attempts=1)
    await kill(desk, held.session)
    assert await desk.sessions.take_back() == (1, [])
    row = await desk.row(held.ids[0])
    assert (row["status"], row["error"]) == ("FAILED", "the worker was lost")


@pytest.mark.parametrize(("crashes", "status"), [(2, "PENDING"), (3, "FAILED")])
async def test_a_task_that_kills_its_workers_is_given_up(desk: Desk, crashes: int, status: str) -> None:
    held = await desk.held(attempts=100)
    await desk.db.execute("update tasks_live set crashes = %s", (crashes,))
    await kill(desk, held.session)
    await desk.sessions.take_back()
    row = await desk.row(held.ids[0])
    assert row["status"] == status
    assert ("died 4 times" in row["error"]) == (status == "FAILED")


async def test_a_lost_task_that_was_to_be_cancelled_is(desk: Desk) -> None:
    dead, unheard = await desk.held(), await desk.held()
    for held in (dead, unheard):
        await desk.store.cancel(held.ids[0])
    await kill(desk, dead.session)
    await desk.hello(unheard.session, resumed=True)
    assert (await desk.sessions.take_back())[0] == 2
    assert await desk.statuses([*dead.ids, *unheard.ids]) == ["CANCELLED"] * 2


async def test_a_claim_that_commits_late_is_taken_back(desk: Desk) -> None:
    """Reaping is done for every dead session, each time: a claim may commit after its session died, or after the next Hello."""
    ids = await desk.create(2)
    dead, moved = await desk.worker(), await desk.worker()
    await kill(desk, dead.session)
    await desk.hello(moved.session, resumed=True)
    assert await desk.sessions.take_back() == (0, [])
    for id_, seat in zip(ids, (dead, moved), strict=True):
        await desk.db.execute(
            "update tasks_live set status = 'QUEUED', session = %s, stream = 1, epoch = 1, attempt = 1, max_attempts = 5 where id = %s",
            (seat.session, id_),
        )
    assert (await desk.sessions.take_back())[0] == 2
    assert await desk.statuses(ids) == ["PENDING"] * 2


async def test_a_hello_that_is_under_way_keeps_its_tasks(desk: Desk, dsn: str) -> None:
    """They are of an older stream for whoever looks, and the next moment they are not: what is locked is left alone."""
    held = await desk.held(started=True)
    await desk.hello(held.session, resumed=True)
    async with opened(dsn) as other, desk.db.transaction():
        await desk.db.execute("update sessions set stream = 3 where id = %s", (held.session,))
        await desk.db.execute("update tasks_live set stream = 3 where session = %s", (held.session,))
        assert await other.sessions.take_back() == (0, [])
    assert await desk.sessions.take_back() == (0, [])
    assert await desk.statuses(held.ids) == ["RUNNING"]
