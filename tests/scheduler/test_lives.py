"""Streams that break, sessions that die or move, schedulers that stop: who holds what afterwards."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from grpclib import GRPCError
from grpclib import Status as Code
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest
from scheduler.workman import House, Workman, until

from taskrunner.domain.errors import ConfigurationError
from taskrunner.domain.task import NewTask, TaskFilter
from taskrunner.wire.pb.taskrunner.v1 import Outcome, Started, WorkerMessage


async def create(house: House, n: int = 1, **fields: Any) -> list[UUID]:
    made = await house.store.create([NewTask(**{"task_type": "t", "payload": json.dumps(number), **fields}) for number in range(n)])
    return [one.id for one in made]


async def rows(house: House, query: str) -> list[tuple[Any, ...]]:
    async with house.store.pool.connection() as connection:
        return await (await connection.execute(query)).fetchall()


async def session_is(house: House, man: Workman, status: str) -> bool:
    return (status,) in await rows(house, f"select status from sessions where id = '{man.session}'")


@asynccontextmanager
async def beating(man: Workman, address: str) -> AsyncIterator[None]:
    """Beats as a worker's thread sends them, beside the body."""

    async def beats() -> None:
        while True:
            await man.beat(address)
            await asyncio.sleep(0.2)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(beats())
        yield
        task.cancel()


async def test_a_killed_worker_s_tasks_run_elsewhere_within_a_second(house: House) -> None:
    address, _ = await house.scheduler(lease=4)
    dying = await house.workman(address, slots=3)
    ids = await create(house, 3)
    await dying.take(3)
    living = await house.workman(address)
    async with beating(living, address):
        await asyncio.sleep(2 * 4 / 5)  # a scheduler reaps nobody before it has been well for two beats
        dying.cut()
        cut_at = time.monotonic()
        await living.take(1)
        assert time.monotonic() - cut_at < 1.5
        (first,) = living.held
        await living.report(Outcome.COMPLETED)
        await living.take(1)  # suspects come step by step
        assert first not in living.held
    lost = [(await house.store.attempts([id_])).get(id_, []) for id_ in ids]
    assert [[attempt.outcome for attempt in attempts] for attempts in lost] == [["LOST"]] * 3
    assert await session_is(house, dying, "DEAD")


@pytest.mark.parametrize("broken", ["work", "beat"])
async def test_one_broken_connection_kills_nobody(house: House, broken: str) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    ids = await create(house, 2)
    await man.take(2)
    other = await house.workman(address)
    async with beating(other, address):
        if broken == "beat":
            man.cut("beat")
            await asyncio.sleep(0.9)  # more than half a second, less than a lease
        else:
            man.cut("work")
            for _ in range(12):
                await man.beat(address)
                await asyncio.sleep(0.2)
        assert await session_is(house, man, "LIVE")
    assert await house.statuses(ids) == ["QUEUED"] * 2
    welcome = await man.connect(address)
    assert (welcome.over, welcome.lost_ids) == (False, b"")
    assert (await man.report(Outcome.COMPLETED)).stale_ids == b""


async def test_a_silent_worker_dies_with_its_lease_and_is_told_so(house: House) -> None:
    address, _ = await house.scheduler(lease=1)
    silent = await house.workman(address)
    (id_,) = await create(house)
    await silent.take()
    living = await house.workman(address)
    async with beating(living, address):
        await living.take()
        assert [*living.held] == [id_.bytes]
        silent.cut("beat")  # the scheduler has ended a stream that was silent for a lease
        assert (await silent.beat(address)).over
        welcome = await silent.connect(address)
        assert welcome.over
        new = await house.workman(address, types=("u",))
        assert not (await new.connect(address)).over
    assert (await living.report(Outcome.COMPLETED)).stale_ids == b""


async def test_beats_keep_a_session_alive_for_many_leases(house: House) -> None:
    address, _ = await house.scheduler(lease=1.5)
    man = await house.workman(address)
    (id_,) = await create(house)
    await man.take()
    for _ in range(20):
        assert not (await man.beat(address)).over
        await asyncio.sleep(0.2)
    assert (await man.report(Outcome.COMPLETED)).stale_ids == b""
    assert await house.statuses([id_]) == ["COMPLETED"]


async def test_what_the_worker_did_not_get_comes_again_with_its_attempt(house: House) -> None:
    """Tasks that were sent into a broken stream: the next Hello does not name them."""
    address, _ = await house.scheduler()
    man = await house.workman(address)
    ids = await create(house, 2)
    await man.take(2)
    del man.held[ids[0].bytes]
    man.cut("work")
    assert (await man.connect(address)).lost_ids == b""
    tasks = await man.take()
    assert (tasks.ids, tasks.attempts) == (ids[0].bytes, (1).to_bytes(4, "big"))
    assert man.held[ids[0].bytes] == (2).to_bytes(8, "big")
    assert (await man.report(Outcome.COMPLETED)).stale_ids == b""


async def test_claims_that_were_not_sent_are_released_when_the_stream_breaks(house: House) -> None:
    """A worker that reads nothing: its window of 4 MiB fills, and what waits behind it goes back at once."""
    address, _ = await house.scheduler(lease=30)
    deaf = await house.workman(address, slots=1000)
    for n in range(6):
        await create(house, 4, payload=json.dumps("x" * 400_000), queue=f"q{n}")
    await until(lambda: none_pending(house))
    deaf.cut("work")
    await until(lambda: some_pending(house))
    assert {attempt for (attempt,) in await rows(house, "select attempt from tasks_live where status = 'PENDING'")} == {0}
    assert await rows(house, "select from attempts") == []


async def test_a_claim_that_waited_for_half_a_lease_is_not_sent(house: House) -> None:
    """Its worker may have died meanwhile, or be another one by now: it goes back unsent, and is claimed anew."""
    address, _ = await house.scheduler(lease=1.5)
    man = await house.workman(address)
    async with house.store.pool.connection() as connection, connection.transaction():
        await connection.execute("lock table sessions in access exclusive mode")  # claims wait for it, and get it before they give up
        await create(house)
        await asyncio.sleep(0.9)
    async with beating(man, address):
        tasks = await man.take()
    assert (tasks.epochs, tasks.attempts) == ((2).to_bytes(8, "big"), (1).to_bytes(4, "big"))


async def none_pending(house: House) -> bool:
    return not await rows(house, "select from tasks_live where status = 'PENDING'")


async def some_pending(house: House) -> bool:
    return not await none_pending(house)


async def test_a_goodbye_ends_the_session_at_once(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    (id_,) = await create(house)
    await man.take()
    await man.report(Outcome.COMPLETED)
    await man.goodbye(last=True)
    await until(lambda: session_is(house, man, "DEAD"))
    assert await house.statuses([id_]) == ["COMPLETED"]


async def test_many_goodbyes_at_once_are_all_written_down(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    men = [await house.workman(address) for _ in range(8)]
    async with asyncio.TaskGroup() as group:
        for man in men:
            group.create_task(man.goodbye(last=True))
    await until(lambda: all_dead(house))


async def all_dead(house: House) -> bool:
    return not await rows(house, "select from sessions where status = 'LIVE'")


@pytest.mark.parametrize("last", [False, True])
async def test_a_worker_that_says_goodbye_to_go_elsewhere_takes_along_what_it_holds(house: House, last: bool) -> None:
    """Also one that drains, and of a version whose first Goodbye is its last."""
    first, _ = await house.scheduler(lease=5)
    second, _ = await house.scheduler(lease=5)
    man = await house.workman(first)
    ids = await create(house, 3)
    await man.take(3)
    await man.work.send_message(WorkerMessage(started=Started(ids=ids[0].bytes, epochs=man.held[ids[0].bytes])))
    await man.goodbye(last=last)
    async with beating(man, first):
        await asyncio.sleep(1.2)  # more than a pass of each scheduler
        assert await session_is(house, man, "LIVE")
        welcome = await man.connect(second)
    assert (welcome.over, welcome.lost_ids) == (False, b"")
    assert (await man.report(Outcome.COMPLETED)).stale_ids == b""
    assert {(task.attempt, str(task.status)) for task in await house.store.list(TaskFilter())} == {(1, "COMPLETED")}
    assert await rows(house, "select from attempts") == []


async def test_a_scheduler_that_stops_sends_its_workers_elsewhere_and_settles_what_they_said(house: House) -> None:
    first, stop = await house.scheduler(lease=5)
    second, _ = await house.scheduler(lease=5)
    man = await house.workman(first, slots=3)
    ids = await create(house, 5)
    await man.take(3)
    async with asyncio.TaskGroup() as group:
        stopping = group.create_task(stop())
        await man.hear_a("goodbye")
        await man.report(Outcome.COMPLETED, [next(iter(man.held))])
        with pytest.raises(GRPCError) as refused:
            late = house.man()
            await late.connect(first)
        assert refused.value.status == Code.UNAVAILABLE
        man.cut("work")
        man.cut("beat")
        welcome = await man.connect(second)
        await man.beat(second)
        assert (welcome.over, welcome.lost_ids) == (False, b"")
        await man.take(1)
        async with asyncio.timeout(4):
            await stopping
    await man.report(Outcome.COMPLETED)
    await man.take(1)
    await man.report(Outcome.COMPLETED)
    assert await house.statuses(ids) == ["COMPLETED"] * 5
    assert {task.attempt for task in await house.store.list(TaskFilter())} == {1}


async def test_a_killed_scheduler_costs_no_execution(house: House) -> None:
    """Its workers' sessions go on elsewhere: nothing is run again."""
    first, _ = await house.scheduler(lease=3)
    second, _ = await house.scheduler(lease=3)
    man = await house.workman(first)
    ids = await create(house, 3)
    await man.take(3)
    man.cut()  # as both ends see it when the scheduler dies
    await man.connect(second)
    await man.beat(second)
    await asyncio.sleep(0.8)  # an early death would come after half a second
    assert (await man.report(Outcome.COMPLETED)).stale_ids == b""
    assert await rows(house, "select from attempts") == []
    assert await house.statuses(ids) == ["COMPLETED"] * 3


async def test_tasks_created_elsewhere_arrive_at_once_and_without_hints_within_a_second(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    await create(house)  # by another process: its hint comes through the database
    began = time.monotonic()
    await man.take()
    assert time.monotonic() - began < 0.9
    await rows(house, "insert into tasks_live (task_type, payload) values ('t', '1') returning id")  # nobody hints at it
    await man.take()
    assert time.monotonic() - began < 3


async def test_serving_twice_on_one_port_is_refused_with_the_setting_s_name(house: House) -> None:
    address, _ = await house.scheduler()
    with pytest.raises((ConfigurationError, ExceptionGroup)) as caught:
        await house.scheduler(scheduler_port=int(address.rpartition(":")[2]))
    assert "SCHEDULER_PORT" in str([caught.value, *getattr(caught.value, "exceptions", ())])


async def test_starting_makes_the_schema_and_the_leaves_however_many_start(house: House, empty_dsn: str) -> None:
    fresh = House(house.store, empty_dsn, house._stack)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(fresh.scheduler())
    address, _ = await fresh.scheduler()
    man = await fresh.workman(address)
    channel = man._line("health", address)
    reply = await HealthStub(channel).Check(HealthCheckRequest(service="taskrunner.v1.Scheduler"))
    assert reply.status == 1
