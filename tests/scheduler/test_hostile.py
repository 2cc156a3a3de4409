"""Workers that do not speak as they should: deadlines, sizes, and how much one scheduler holds for them (F44, F45)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpclib import GRPCError, Status
from grpclib.exceptions import StreamTerminatedError
from scheduler.workman import House, opened
from store.desk import Desk
from store.desk import opened as desk_opened

from taskrunner.domain.lanes import Serves
from taskrunner.domain.task import NewTask
from taskrunner.scheduler import reports, service, settler
from taskrunner.scheduler.delivery import LETTER
from taskrunner.scheduler.roster import Session
from taskrunner.scheduler.settler import Settler
from taskrunner.wire.pb.taskrunner.v1 import Outcome, Outcomes, Tasks, WorkerMessage


@pytest.fixture
async def house(dsn: str) -> AsyncIterator[House]:
    async with opened(dsn) as it:
        yield it


@pytest.fixture
async def desk(dsn: str) -> AsyncIterator[Desk]:
    async with desk_opened(dsn) as it:
        yield it


async def test_a_stream_that_does_not_say_who_it_is_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FIRST_MESSAGE", 0.2)
    address, _ = await house.scheduler()
    man = house.man()
    await man.open(address)
    await man.work.send_request()
    with pytest.raises(GRPCError, match="no Hello within 0.2 seconds") as refused:
        await man.hear()
    assert refused.value.status is Status.DEADLINE_EXCEEDED


async def test_a_beat_stream_that_falls_silent_is_ended(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never began, and one whose session is dead anyway."""
    monkeypatch.setattr(service, "FIRST_MESSAGE", 0.2)
    address, _ = await house.scheduler(lease=0.5)
    man = await house.workman(address)
    assert man.pulse is not None
    async with asyncio.timeout(3):
        assert await man.pulse.recv_message() is None


async def test_a_message_that_is_not_understood_ends_its_stream_only(house: House) -> None:
    address, _ = await house.scheduler()
    honest, man = await house.workman(address), await house.workman(address)
    await man.work.send_message(WorkerMessage(outcomes=Outcomes(batch=1, ids=bytes(16), epochs=b"")))
    with pytest.raises((GRPCError, StreamTerminatedError)):
        await man.hear_a("settled")
    ids = [task.id for task in await house.store.create([NewTask(task_type="t", payload="{}")])]
    await honest.take()
    await honest.report(Outcome.COMPLETED)
    assert await house.statuses(ids) == ["COMPLETED"]


async def test_a_claim_of_large_payloads_goes_out_in_several_messages(house: House) -> None:
    """Nobody foretold their size; a single message of them would be more than a worker takes, or a slow link in time."""
    n, size = 40, 250_000
    await house.store.create([NewTask(task_type="t", payload=f'"{"x" * size}"') for _ in range(n)])
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=n)
    sizes: list[int] = []
    got: set[bytes] = set()
    while len(got) < n:
        tasks: Tasks = await man.hear_a("tasks")
        sizes.append(sum(map(len, tasks.payloads)))
        assert len(tasks.payloads) == len(tasks.ids) // 16 == len(tasks.attempts) // 4 == len(tasks.run_ats) // 8
        got |= {tasks.ids[at : at + 16] for at in range(0, len(tasks.ids), 16)}
    assert max(sizes) <= LETTER
    assert sum(sizes) == n * (size + 2)


async def test_what_waits_to_be_written_has_a_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stream is read while there is too much of it, and all is read again once half of it is written."""
    monkeypatch.setattr(settler, "MOST_HELD", 1_000_000)
    held = await desk.held(30)
    ids, epochs = held.blobs
    session = Session(id=held.session, stream=1, name="w", serves=Serves((), None), slots=1, prefetch=0)
    crowded = Settler(desk.settling, committed=lambda _: None)
    for n in range(30):
        assert crowded.room.is_set() == (n <= 19)
        one = Outcomes(
            batch=n, outcome=Outcome.COMPLETED, ids=ids[n * 16 :][:16], epochs=epochs[n * 8 :][:8], results=[b'"' + b"x" * 50_000 + b'"']
        )
        crowded.report(session, one)
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(crowded.run())
        async with asyncio.timeout(10):
            await crowded.room.wait()
            await crowded.flushed()
        loop.cancel()
    assert await desk.statuses(held.ids) == ["COMPLETED"] * 30


RESULTS = {
    "NUL": b'"a\\u0000b"',
    "lone surrogate": b'"\\ud800"',
    "broken UTF-8": b'"\xff\xfe"',
    "no JSON": b"{",
    "NaN": b"NaN",
    "depth 20,000": b"[" * 20_000 + b"]" * 20_000,
    "5,000 digits": b"9" * 5_000,
    "1e400000": b"1e400000",
    "10 MB": b'"' + b"x" * 10_000_000 + b'"',
    "raw NUL": b"\0",
}


async def test_f37_what_a_foreign_worker_reports_is_stored_or_refused_and_never_in_the_way(house: House) -> None:
    """Results and errors of a worker that checks nothing: each task ends, those beside it in the same message, too."""
    ids = [task.id for task in await house.store.create([NewTask(task_type="t", payload="{}", max_attempts=1) for _ in range(40)])]
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=40)
    await man.take(40)
    order = [*man.held]
    good = [b'"fine"'] * 10
    await man.report(Outcome.COMPLETED, order[:20], results=[one for pair in zip(good, RESULTS.values(), strict=True) for one in pair])
    errors = ["a\0b", "x" * 1_000_000, "\N{REPLACEMENT CHARACTER}", "", "\x1b[31m"] * 2
    await man.report(Outcome.FAILED, order[20:30], errors=errors, tracebacks=errors)
    await man.report(Outcome.RETRY, order[30:], errors=errors, tracebacks=errors, delays=bytes(80))
    found = {task.id.bytes: task for task in await house.store.get_many(ids)}
    assert [str(found[id_].status) for id_ in order[:20:2]] == ["COMPLETED"] * 10
    ends = dict(zip(RESULTS, (found[id_] for id_ in order[1:20:2]), strict=True))
    assert {name for name, task in ends.items() if task.status == "COMPLETED"} <= {"broken UTF-8", "10 MB", "5,000 digits"}
    assert all("cannot be stored" in str(task.error) for task in ends.values() if task.status == "FAILED")
    assert {str(found[id_].status) for id_ in order[20:]} == {"FAILED"}
    assert max(len(str(found[id_].error)) for id_ in order[20:]) <= reports.LONGEST_ERROR
