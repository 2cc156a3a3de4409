"""What a scheduler writes down of streams that end at awkward moments."""

import asyncio

from scheduler.workman import House, Workman


async def column(house: House, man: Workman, name: str) -> object:
    async with house.store.pool.connection() as connection:
        rows = await (await connection.execute(f"select {name} from sessions where id = '{man.session}'")).fetchall()
    return rows[0][0]


async def test_a_scheduler_that_stops_writes_down_who_parted_in_order(house: House) -> None:
    """Or else it is the next one that finds the session, and takes its worker for dead."""
    address, stop = await house.scheduler()
    man = await house.workman(address)
    async with asyncio.TaskGroup() as group, house.store.pool.connection() as connection, connection.transaction():
        await connection.execute(f"select from sessions where id = '{man.session}' for update")
        await man.goodbye(last=True)
        group.create_task(stop())
        await asyncio.sleep(0.3)
    assert await column(house, man, "status") == "DEAD"
