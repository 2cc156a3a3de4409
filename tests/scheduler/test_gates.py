"""Paused queues and types: nothing of them is claimed, by no scheduler, until somebody resumes them."""

import asyncio
import time
from uuid import UUID

import pytest
from scheduler.workman import House, until

from taskrunner.domain.task import NewTask
from taskrunner.store.gates import Gates
from taskrunner.wire.columns import ID, split


async def create(house: House, task_type: str = "t", queue: str = "default") -> UUID:
    return (await house.store.create([NewTask(task_type=task_type, payload="1", queue=queue)]))[0].id


async def gates_are(house: House, *closed: tuple[str, str]) -> bool:
    return {(scope, name) for scope, name, _ in await Gates(house.store).closed()} == set(closed)


@pytest.mark.parametrize(("scope", "name"), [("queue", "shut"), ("type", "u")])
async def test_a_pause_survives_restarts_and_ends_when_it_is_resumed(house: House, scope: str, name: str) -> None:
    gates = Gates(house.store)
    await gates.close(scope, name)
    await gates.close(scope, name)
    assert await gates_are(house, (scope, name))
    kept, free = await create(house, "u", "shut"), await create(house)
    address, stop = await house.scheduler(lease=30)
    man = await house.workman(address, types=("t", "u"))
    assert split((await man.take()).ids, ID) == [free.bytes]
    await stop()
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, types=("t", "u"))
    later = await create(house)
    assert split((await man.take()).ids, ID) == [later.bytes]
    assert await house.statuses([kept]) == ["PENDING"]
    began = time.monotonic()
    await gates.open(scope, name)
    assert split((await man.take()).ids, ID) == [kept.bytes]
    assert time.monotonic() - began < 1.5


async def test_a_pause_is_heard_by_a_running_scheduler(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    await Gates(house.store).close("queue", "default")
    await asyncio.sleep(1.1)  # that is what is promised
    kept, free = await create(house), await create(house, queue="other")
    assert split((await man.take()).ids, ID) == [free.bytes]
    await Gates(house.store).open("queue", "default")
    assert split((await man.take()).ids, ID) == [kept.bytes]


async def test_a_suspect_of_a_paused_queue_waits_too(house: House) -> None:
    id_, free = await create(house), await create(house, queue="other")
    async with house.store.pool.connection() as connection:
        await connection.execute("update tasks_live set crashes = 1, attempt = 1, max_attempts = 5, timeout = 9")
    await Gates(house.store).close("queue", "default")
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    assert split((await man.take()).ids, ID) == [free.bytes]
    await man.report(0)
    await Gates(house.store).close("type", "t")
    await Gates(house.store).open("queue", "default")
    await asyncio.sleep(1.1)
    assert await house.statuses([id_]) == ["PENDING"]
    await Gates(house.store).open("type", "t")
    assert split((await man.take()).ids, ID) == [id_.bytes]


async def test_a_gate_that_is_closed_until_a_time_opens_by_itself(house: House) -> None:
    began = time.monotonic()
    async with house.store.pool.connection() as connection:
        await connection.execute("insert into gates values ('queue', 'default', now() + interval '0.7 seconds')")
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    id_ = await create(house)
    assert split((await man.take()).ids, ID) == [id_.bytes]
    assert time.monotonic() - began > 0.69
    await until(lambda: gates_are(house))
