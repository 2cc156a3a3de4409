"""The settler against the real store: batches, what is said to whom, and trouble with the database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from store.desk import Desk, Held, opened
from structlog.testing import capture_logs

from taskrunner.domain.lanes import Serves
from taskrunner.domain.task import Back
from taskrunner.scheduler import settler as settler_room
from taskrunner.scheduler.reports import MOST
from taskrunner.scheduler.roster import Session
from taskrunner.scheduler.settler import Settler
from taskrunner.wire.columns import pack_doubles
from taskrunner.wire.pb.taskrunner.v1 import Outcome, Outcomes, Progress, Settled, Started


@pytest.fixture
async def desk(dsn: str) -> AsyncIterator[Desk]:
    async with opened(dsn) as it:
        yield it


def worker(held: Held) -> Session:
    """The one that holds these."""
    return Session(id=held.session, stream=1, name="w", serves=Serves((("t", 5, 300.0),), None), slots=10, prefetch=0)


def outcomes(held: Held, outcome: Outcome = Outcome.COMPLETED, *, batch: int = 1, delays: list[float] | None = None) -> Outcomes:
    ids, epochs = held.blobs
    return Outcomes(batch=batch, outcome=outcome, ids=ids, epochs=epochs, delays=pack_doubles(delays or []))


def said(session: Session) -> list[Settled]:
    return [parcel.message.settled for parcel in session.outbox if parcel.message.settled is not None]


async def confirmed(session: Session, n: int) -> None:
    """Return when ``n`` batches are."""
    async with asyncio.timeout(10):
        while sum(len(settled.batches) for settled in said(session)) < n:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(settler: Settler) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(settler.run())
        yield
        async with asyncio.timeout(10):
            await settler.flushed()
        loop.cancel()


async def test_what_comes_while_a_batch_is_written_goes_together(desk: Desk) -> None:
    odd, even = await desk.held(30), await desk.held(30)
    told: list[list[Back]] = []
    settler, one, other = Settler(desk.settling, committed=told.append), worker(odd), worker(even)
    for n in range(60):
        held = odd if n % 2 else even
        part = Held(held.session, 1, held.ids[n // 2 : n // 2 + 1], held.epochs[n // 2 : n // 2 + 1])
        assert settler.report(one if n % 2 else other, outcomes(part, batch=n)) == 1
    async with running(settler):
        await settler.flushed()
    assert await desk.statuses([*odd.ids, *even.ids]) == ["COMPLETED"] * 60
    assert await desk.rows("select count(distinct xmin::text) as n from tasks") == [{"n": 1}]
    assert [settled.batches for settled in said(one)] == [[n for n in range(60) if n % 2]]
    assert [settled.batches for settled in said(other)] == [[n for n in range(60) if not n % 2]]
    assert told == [[]]


async def test_a_statement_has_its_bound(desk: Desk) -> None:
    held = await desk.held(3 * MOST // 2)
    settler, session = Settler(desk.settling, committed=lambda _: None), worker(held)
    for n in range(3):
        part = slice(n * MOST // 2, (n + 1) * MOST // 2)
        settler.report(session, outcomes(Held(held.session, 1, held.ids[part], held.epochs[part]), batch=n))
    async with running(settler):
        pass
    assert [settled.batches for settled in said(session)] == [[0, 1], [2]]


async def test_each_worker_is_told_its_own_stale_pairs(desk: Desk) -> None:
    held = await desk.held(2)
    settler, one, other = Settler(desk.settling, committed=lambda _: None), worker(held), worker(held)
    stale = Held(held.session, 1, held.ids[1:], [9])
    settler.report(one, outcomes(Held(held.session, 1, held.ids[:1], [1])))
    settler.report(other, outcomes(stale))
    async with running(settler):
        pass
    assert [(settled.stale_ids, settled.stale_epochs) for settled in said(one)] == [(b"", b"")]
    assert [(settled.stale_ids, settled.stale_epochs) for settled in said(other)] == [stale.blobs]


async def test_a_worker_speaks_only_for_its_own(desk: Desk) -> None:
    """F44: who names another session's ids and epochs changes nothing, whatever it says of them, and is told so."""
    theirs, ours = await desk.held(4), await desk.held(4)
    settler, thief, owner = Settler(desk.settling, committed=lambda _: None), worker(ours), worker(theirs)
    columns = {"ids": theirs.blobs[0], "epochs": theirs.blobs[1]}
    before = [await desk.row(id_) for id_ in theirs.ids]
    async with running(settler):
        for n, outcome in enumerate(Outcome):
            settler.report(thief, outcomes(theirs, outcome, batch=n))
        settler.report(owner, outcomes(Held(theirs.session, 1, theirs.ids[:0], []), batch=1))  # so that a batch has two sessions
        settler.started(thief, Started(**columns))
        settler.progress(thief, Progress(**columns, fractions=bytes(16), messages=["mine"] * 4))
        settler.report(thief, outcomes(ours, batch=99))
        await settler.flushed()
        assert [await desk.row(id_) for id_ in theirs.ids] == before
        assert await desk.statuses(ours.ids) == ["COMPLETED"] * 4
        stale = b"".join(settled.stale_ids for settled in said(thief))
        assert {stale[at : at + 16] for at in range(0, len(stale), 16)} == {id_.bytes for id_ in theirs.ids}
        settler.report(owner, outcomes(theirs, batch=2))
    assert await desk.statuses(theirs.ids) == ["COMPLETED"] * 4


async def test_what_a_stranger_has_locked_holds_up_its_own_message_and_nothing_else(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_room, "LOCKED", 0.01)  # it is tried nearly always
    held = await desk.held(7)
    parts = [Held(held.session, 1, held.ids[n : n + 1], held.epochs[n : n + 1]) for n in range(7)]
    settler, session = Settler(desk.settling, committed=lambda _: None), worker(held)
    with capture_logs() as logs:
        async with running(settler), desk.db.transaction():
            await desk.db.execute("select from tasks_live where id = any(%s) for update", ([held.ids[0], held.ids[1]],))
            settler.started(session, Started(ids=parts[0].blobs[0], epochs=parts[0].blobs[1]))
            settler.report(session, outcomes(Held(held.session, 1, held.ids[1:3], held.epochs[1:3]), batch=1))
            settler.report(session, outcomes(parts[3], batch=2))
            settler.report(session, outcomes(parts[4], Outcome.FAILED, batch=3))
            await confirmed(session, 2)
            settler.report(session, outcomes(parts[5], batch=4))
            await confirmed(session, 3)
            await asyncio.sleep(0.1)
            began = time.monotonic()
            settler.report(session, outcomes(parts[6], batch=5))
            await confirmed(session, 4)
            assert time.monotonic() - began < 0.8  # a lock that is known is not waited for: that would take a second
            assert await desk.statuses(held.ids) == ["QUEUED", "QUEUED", "COMPLETED", "COMPLETED", "FAILED", "COMPLETED", "COMPLETED"]
            assert settler.waiting == 2
    assert len(logs) == 1, "it is said once, and not with each try"
    assert sorted(batch for settled in said(session) for batch in settled.batches) == [1, 2, 3, 4, 5]
    assert [settled.stale_ids for settled in said(session)] == [b""] * len(said(session))
    assert await desk.statuses(held.ids[:2]) == ["RUNNING", "COMPLETED"]


async def test_torn_columns_are_refused(desk: Desk) -> None:
    settler, session = Settler(desk.settling, committed=lambda _: None), worker(await desk.held())
    for ids, epochs in ((bytes(16), b""), (bytes(17), bytes(8)), (bytes(32), bytes(8)), (b"", bytes(8))):
        with pytest.raises(ValueError, match="different lengths"):
            settler.report(session, Outcomes(ids=ids, epochs=epochs))
        with pytest.raises(ValueError, match="different lengths"):
            settler.started(session, Started(ids=ids, epochs=epochs))
        with pytest.raises(ValueError, match="different lengths"):
            settler.progress(session, Progress(ids=ids, epochs=epochs, fractions=bytes(4), messages=["x"]))


async def test_nothing_is_confirmed_while_the_database_is_away_and_all_of_it_later(desk: Desk) -> None:
    seat = await desk.worker()
    await desk.create(5)
    both = await desk.claim(seat, 5)
    held, errors = Held(seat.session, 1, both.ids[:3], both.epochs[:3]), Held(seat.session, 1, both.ids[3:], both.epochs[3:])
    settler, session = Settler(desk.settling, committed=lambda _: None), worker(both)
    async with desk.db.transaction():
        await desk.db.execute("lock table tasks_live in exclusive mode")  # as good as away: everything runs into its lock_timeout
        settler.started(session, Started(ids=errors.blobs[0], epochs=errors.blobs[1]))
        settler.report(session, outcomes(held, batch=1))
        settler.report(session, outcomes(errors, Outcome.RETRY, batch=2, delays=[60.0, 60.0]))
        async with asyncio.TaskGroup() as group:
            loop = group.create_task(settler.run())
            await asyncio.sleep(1.2)
            assert said(session) == []
            await desk.db.execute("commit")
            async with asyncio.timeout(10):
                await settler.flushed()
            loop.cancel()
    assert sorted(batch for settled in said(session) for batch in settled.batches) == [1, 2]
    assert await desk.statuses([*held.ids, *errors.ids]) == ["COMPLETED"] * 3 + ["PENDING"] * 2


async def test_a_connection_that_breaks_is_opened_again_and_nothing_is_counted_twice(desk: Desk) -> None:
    seat = await desk.worker()
    await desk.create(6)
    both = await desk.claim(seat, 6)
    held, more = Held(seat.session, 1, both.ids[:3], both.epochs[:3]), Held(seat.session, 1, both.ids[3:], both.epochs[3:])
    settler, session = Settler(desk.settling, committed=lambda _: None), worker(both)
    async with running(settler):
        settler.report(session, outcomes(held, batch=1))
        await settler.flushed()
        await desk.db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        settler.report(session, outcomes(held, batch=2))
        settler.report(session, outcomes(more, batch=3))
    assert sorted(batch for settled in said(session) for batch in settled.batches) == [1, 2, 3]
    assert all(settled.stale_ids == b"" for settled in said(session))
    assert {one.status: one.n for one in await desk.store.counts()} == {"COMPLETED": 6}


@pytest.mark.parametrize(("given", "kept"), [([float("nan")], 0), ([-5.0], 0), ([float("inf")], 366 * 86_400), (None, 0), ([30.0], 30)])
async def test_a_strange_delay_is_put_right(desk: Desk, given: list[float] | None, kept: float) -> None:
    held = await desk.held()
    settler, session = Settler(desk.settling, committed=lambda _: None), worker(held)
    settler.report(session, outcomes(held, Outcome.RETRY, delays=given))
    async with running(settler):
        pass
    row = await desk.row(held.ids[0])
    assert (row["run_at"] - row["updated_at"]).total_seconds() == pytest.approx(kept, abs=0.01)
    assert row["status"] == "PENDING"
