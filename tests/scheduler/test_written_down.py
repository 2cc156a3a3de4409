"""What a scheduler writes down of streams that end at awkward moments."""

import asyncio

import pytest
from scheduler.workman import House, Workman, until

from taskrunner.scheduler import service


async def session_is(house: House, man: Workman, condition: str) -> bool:
    async with house.store.pool.connection() as connection:
        return bool((await connection.execute(f"select from sessions where id = '{man.session}' and {condition}")).rowcount)


async def test_a_scheduler_that_stops_writes_down_who_parted_in_order(house: House) -> None:
    """Or else it is the next one that finds the session, and takes its worker for dead."""
    address, stop = await house.scheduler()
    man = await house.workman(address)
    async with asyncio.TaskGroup() as group, house.store.pool.connection() as connection, connection.transaction():
        await connection.execute(f"select from sessions where id = '{man.session}' for update")
        await man.goodbye(last=True)
        group.create_task(stop())
        await asyncio.sleep(0.3)
    assert await session_is(house, man, "status = 'DEAD'")


async def test_a_stream_that_breaks_while_its_hello_is_written_is_lost(house: House) -> None:
    """Its scheduler alone knows the number of it."""
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    async with house.store.pool.connection() as connection, connection.transaction():
        await connection.execute(f"select from sessions where id = '{man.session}' for update")
        await man.say(address, man.hello())
        await asyncio.sleep(0.1)
        man.cut("work")
        await asyncio.sleep(0.1)
    await until(lambda: session_is(house, man, "stream = 2 and stream_lost_at is not null"))


async def test_a_stream_that_breaks_under_its_welcome_is_lost(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    address, _ = await house.scheduler(lease=30)
    man = house.man()

    async def broken(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(service.Stream, "send_message", broken)
    await man.say(address, man.hello())
    await until(lambda: session_is(house, man, "stream = 1 and stream_lost_at is not null"))
