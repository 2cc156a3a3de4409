"""Tasks that lost their worker: how soon all of them run again, and what one that kills its workers takes along."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from grpclib.exceptions import StreamTerminatedError
from scheduler.workman import House, Workman, until

from taskrunner.domain.task import NewTask
from taskrunner.wire.columns import EPOCH, ID, split
from taskrunner.wire.pb.taskrunner.v1 import Capacity, Outcome, Outcomes, Started, WorkerMessage

SLOW = 0.1  # seconds after which a worker says that a handler runs
LEASE = 3.0


async def create(house: House, n: int, **fields: str) -> list[UUID]:
    return [one.id for one in await house.store.create([NewTask(**{"task_type": "t", "payload": "1", **fields}) for _ in range(n)])]


async def crashed(house: House, n: int, crashes: int = 1) -> list[UUID]:
    """Tasks as they are after the death of so many of their workers. In a queue of its own: its lane is not read."""
    ids = await create(house, n, queue="crashed")
    async with house.store.pool.connection() as connection:
        await connection.execute("update tasks_live set crashes = %s, max_attempts = 5, timeout = 60 where id = any(%s)", (crashes, ids))
    return ids


async def beat(man: Workman, address: str) -> None:
    with suppress(OSError, StreamTerminatedError, asyncio.CancelledError):
        while True:
            await man.beat(address)
            await asyncio.sleep(LEASE / 5)


async def taken(man: Workman) -> dict[bytes, bytes]:
    tasks = await man.hear_a("tasks")
    return dict(zip(split(tasks.ids, ID), split(tasks.epochs, EPOCH), strict=True))


async def starts(man: Workman, seen: list[float]) -> None:
    """A worker whose tasks take for ever: it says that they run, and notes when each came."""
    loop = asyncio.get_running_loop()
    while True:
        pairs = await taken(man)
        seen += [time.monotonic()] * len(pairs)
        message = WorkerMessage(started=Started(ids=b"".join(pairs), epochs=b"".join(pairs.values())))
        loop.call_later(SLOW, lambda message=message: asyncio.ensure_future(man.work.send_message(message)))


@asynccontextmanager
async def beside(*loops: object) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in loops]  # type: ignore[arg-type]  # coroutines
        yield
        for task in tasks:
            task.cancel()


async def test_a_hundred_long_tasks_of_a_dead_worker_all_run_again_within_seconds(house: House) -> None:
    address, _ = await house.scheduler(lease=LEASE)
    dying = await house.workman(address, slots=100)
    async with beside(beat(dying, address)):
        await create(house, 100)
        await dying.take(100)
        await asyncio.sleep(2 * LEASE / 5)  # a scheduler reaps nobody before it has been well for two beats
    men = [await house.workman(address, slots=100) for _ in range(2)]
    seen: list[float] = []
    async with beside(*(beat(man, address) for man in men), *(starts(man, seen) for man in men)):
        dying.cut()
        cut_at = time.monotonic()
        await until(lambda: asyncio.sleep(0, len(seen) == 100), seconds=20)
    took = [at - cut_at for at in (seen[0], seen[-1])]
    assert took[0] < 3 * 1, f"{took[0]:.1f} s for the first of them"
    assert took[1] < 3 * 3, f"{took[1]:.1f} s for the last of them"


async def test_a_backlog_does_not_keep_suspects_out(house: House) -> None:
    address, _ = await house.scheduler(lease=LEASE)
    man = house.man(slots=2)
    await create(house, 80)
    (once,), (twice,) = await crashed(house, 1), await crashed(house, 1, crashes=2)
    await man.connect(address)
    async with beside(beat(man, address)):
        seen: set[bytes] = set()
        while not {once.bytes, twice.bytes} <= seen:
            if len(man.held) == man.slots:
                await asyncio.sleep(0.03)
                await man.report(Outcome.COMPLETED, [*man.held][:1])
            await man.take()
            seen |= man.held.keys()
    assert len(await pending(house)) > 10


async def test_a_worker_that_says_it_has_more_places_than_there_are_numbers_gets_its_suspect(house: House) -> None:
    await crashed(house, 1)
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=0)
    await man.work.send_message(WorkerMessage(capacity=Capacity(slots=3_000_000_000, prefetch=3_000_000_000)))
    await man.take()


async def pending(house: House) -> list[object]:
    async with house.store.pool.connection() as connection:
        return await (await connection.execute("select from tasks_live where status = 'PENDING'")).fetchall()


async def test_a_poison_task_kills_four_workers_and_its_neighbours_run_again_twice_at_most(house: House) -> None:
    """A worker dies when it gets the poison. What else it has does not end before the poison is known."""
    address, _ = await house.scheduler(lease=LEASE)
    before, (poison,), after = await create(house, 5), await create(house, 1), await create(house, 4)

    async def failed() -> bool:
        return await house.statuses([poison]) == ["FAILED"]

    async def live(man: Workman, *, slow: bool) -> None:
        """Until the poison comes."""
        while poison.bytes not in (pairs := await taken(man)):
            columns = {"ids": b"".join(pairs), "epochs": b"".join(pairs.values())}
            over = WorkerMessage(outcomes=Outcomes(batch=1, outcome=Outcome.COMPLETED, **columns))
            await man.work.send_message(WorkerMessage(started=Started(**columns)) if slow else over)
        man.cut()

    watching = await house.workman(address, types=("other",))
    async with beside(beat(watching, address)):
        await asyncio.sleep(2 * LEASE / 5)
        for slow in (True, True, False, False):
            man = await house.workman(address)
            async with beside(beat(man, address)):
                await live(man, slow=slow)
        await until(failed, seconds=15)
    assert "FAILED" not in await house.statuses(before + after)
    lost = {id_: len(attempts) for id_, attempts in (await house.store.attempts(before + after)).items()}
    assert {lost[id_] for id_ in before} == {2}, "those that came back before it, and ran on, were there twice"
    assert {lost[id_] for id_ in after[2:]} == {1}, "those that a later step would have brought once"
