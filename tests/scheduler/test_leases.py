"""What the lease watch notes and writes down, against the real store."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from store.desk import Desk, opened, until_blocked

from taskrunner.domain.task import Back
from taskrunner.scheduler.leases import Leases
from taskrunner.scheduler.roster import Roster
from taskrunner.settings import Settings
from taskrunner.store.claims import Claimed


@pytest.fixture
async def desk(dsn: str) -> AsyncIterator[Desk]:
    async with opened(dsn) as it:
        yield it


def watching(desk: Desk, *, lease: float = 600) -> Leases:
    told: list[Back] = []
    return Leases(desk.sessions, Roster(), Settings(_env_file=None, lease=lease), back=told.extend)


async def status(desk: Desk, session: UUID) -> str:
    (row,) = await desk.rows("select status from sessions where id = %s", session)
    return str(row["status"])


async def test_what_is_noted_while_something_is_written_is_written_too(desk: Desk) -> None:
    leases, one, other = watching(desk), await desk.worker(), await desk.worker()
    async with desk.db.transaction():
        await desk.db.execute("select from sessions where id = %s for update", (one.session,))
        leases.closed(one.session, one.stream)
        async with asyncio.TaskGroup() as group:
            group.create_task(leases.run_once())
            await until_blocked(desk)
            leases.closed(other.session, other.stream)
            await desk.db.execute("commit")
    assert [await status(desk, seat.session) for seat in (one, other)] == ["DEAD", "DEAD"]


async def test_a_claim_that_a_stranger_has_locked_is_undone_later_and_keeps_nobody_waiting(desk: Desk) -> None:
    leases, held, other = watching(desk), await desk.held(3), await desk.worker()
    ids, epochs = held.blobs
    parcel = Claimed(held.session, 1, "default", "t", 3, ids, epochs, b"", b"", b"", b"", [], [], b"")
    async with desk.db.transaction():
        await desk.db.execute("select from tasks_live where id = %s for update", (held.ids[1],))
        leases.undelivered(parcel)
        leases.closed(other.session, other.stream)
        began = time.monotonic()
        await leases.run_once()
        assert time.monotonic() - began < 0.9  # lock_timeout is a second
        assert await desk.statuses(held.ids) == ["PENDING", "QUEUED", "PENDING"]
        assert await status(desk, other.session) == "DEAD"
    await leases.run_once()
    assert await desk.statuses(held.ids) == ["PENDING"] * 3


async def test_nobody_is_declared_dead_before_the_scheduler_was_well_for_two_beats(desk: Desk) -> None:
    """Renew before reap: after an outage every worker looks dead."""
    leases, seat = watching(desk, lease=1), await desk.worker()
    await desk.db.execute("update sessions set lease_until = clock_timestamp() - interval '1 minute'")
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(5):
        while await status(desk, seat.session) == "LIVE":
            await leases.run_once()
            await asyncio.sleep(0.02)
    assert asyncio.get_running_loop().time() - began >= 2 * 0.2


async def test_a_gap_begins_the_two_beats_again(desk: Desk) -> None:
    leases, seat = watching(desk, lease=1), await desk.worker()
    async with asyncio.timeout(5):
        while not leases._may_reap():
            await leases.run_once()
            await asyncio.sleep(0.02)
    leases._unwell()
    await desk.db.execute("update sessions set lease_until = clock_timestamp() - interval '1 minute'")
    await leases.run_once()
    assert await status(desk, seat.session) == "LIVE"


async def test_a_beat_is_answered_when_it_is_committed(desk: Desk) -> None:
    leases, living, dead = watching(desk), await desk.worker(lease=1), await desk.worker()
    await desk.sessions.close_session(dead.session, dead.stream)
    async with asyncio.TaskGroup() as group:
        renewal = group.create_task(leases.renew())
        async with asyncio.timeout(5):
            assert await leases.beat(living.session, 0.0)
            assert not await leases.beat(dead.session, 0.0)
        renewal.cancel()
    (row,) = await desk.rows("select lease_until - clock_timestamp() > interval '9 minutes' as long from sessions where status = 'LIVE'")
    assert row["long"]


async def test_a_beat_stream_that_ends_while_its_renewal_is_on_its_way_is_written_down(desk: Desk) -> None:
    leases, seat = watching(desk), await desk.worker()
    leases.beating[seat.session] += 1
    renewal = asyncio.create_task(leases.renew())
    await leases.beat(seat.session, 0.0)
    async with desk.db.transaction():
        await desk.db.execute("update sessions set drain_requested_at = now()")
        asking = asyncio.create_task(leases.beat(seat.session, 0.0))
        await until_blocked(desk)
        leases.lost_beat(seat.session)
        looking = asyncio.create_task(leases.write_down())
        await asyncio.sleep(0)
    await asyncio.gather(asking, looking)
    await leases.write_down()
    renewal.cancel()
    (row,) = await desk.rows("select beat_lost_at is not null as lost from sessions")
    assert (row["lost"], leases._renewed, leases.draining) == (True, {}, set())


async def test_a_look_for_the_dead_that_had_to_wait_declares_nobody_dead(desk: Desk) -> None:
    """It began when all was well. While it waited for the connection nobody could renew, and all leases ran out."""
    leases, seat = watching(desk, lease=1), await desk.worker()
    async with asyncio.timeout(5):
        while not leases._may_reap():
            await leases.run_once()
            await asyncio.sleep(0.02)
    gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.sessions._line.run(lambda _: gate.wait()))
        await asyncio.sleep(0)
        group.create_task(leases.run_once())
        await asyncio.sleep(0)
        await desk.db.execute("update sessions set lease_until = clock_timestamp() - interval '1 minute'")
        leases._unwell()  # renewing has failed
        gate.set()
    assert await status(desk, seat.session) == "LIVE"


async def test_a_statement_that_comes_too_late_declares_nobody_dead(desk: Desk) -> None:
    seat, now = await desk.worker(), await desk.sessions.clock()
    await desk.db.execute("update sessions set lease_until = clock_timestamp() - interval '1 minute'")
    assert await desk.sessions.end_dead(longest=700, until=now) == []
    assert [one for one, _ in await desk.sessions.end_dead(longest=700, until=now + timedelta(minutes=1))] == [seat.session]
