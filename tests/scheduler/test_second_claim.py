"""Two claims on their way at once, from one lane."""

import asyncio
from typing import Any

import pytest
from scheduler.workman import House, Workman
from scheduler.workman import until as until_true

from taskrunner.domain.task import NewTask
from taskrunner.scheduler import role
from taskrunner.store.claims import PLANS, Claims
from taskrunner.wire.columns import ID, split

# The first claim lies still for half a minute, with its rows locked; others pass.
HELD_UP = """
create sequence claims_seen;
create function hold_up() returns trigger language plpgsql as $$
begin if nextval('claims_seen') = 1 then perform pg_sleep(30); end if; return new; end $$;
create trigger hold_up before update on tasks_live for each row
when (new.status = 'QUEUED' and old.status = 'PENDING') execute function hold_up()
"""
SLEEPING = "select pid from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"


async def heard(man: Workman, seconds: float) -> list[bytes]:
    """The ids of all tasks that come within that time."""
    ids: list[bytes] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                ids += split((await man.hear_a("tasks")).ids, ID)
    return ids


async def sleeping(house: House) -> bool:
    async with house.store.pool.connection() as connection:
        return await (await connection.execute(SLEEPING)).fetchone() is not None


async def test_together_they_fill_the_places_that_there_are_and_no_more(house: House) -> None:
    await house.store.create([NewTask(task_type="t", payload="1") for _ in range(2_000)])
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=10, prefetch=500)
    ids = await heard(man, 1.5)
    assert len(ids) == len({*ids}) <= 510, "places were given away twice"
    assert len(ids) >= 500


async def test_while_one_is_held_up_the_other_goes_on_and_what_the_first_held_is_not_lost(house: House) -> None:
    await house.store.create([NewTask(task_type="t", payload="1") for _ in range(1_000)])
    async with house.store.pool.connection() as connection:
        await connection.execute(HELD_UP)
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=10, prefetch=2_000)
    async with asyncio.timeout(10):
        first = split((await man.hear_a("tasks")).ids, ID)
    assert len(first) == 500
    assert await sleeping(house), "the claim that came first is still on its way"
    async with house.store.pool.connection() as connection:
        await connection.execute(f"select pg_terminate_backend(pid) from ({SLEEPING}) s")
    await until_true(lambda: gone_out(house))
    man.cut("work")  # its scheduler said goodbye, since nobody knows what became of that claim
    await man.connect(address, ids=b"".join(first), epochs=(1).to_bytes(8, "big") * 500)
    rest: list[bytes] = []
    async with asyncio.timeout(10):
        while len(rest) < 500:
            rest += split((await man.hear_a("tasks")).ids, ID)
    assert len({*first, *rest}) == 1_000


async def test_a_lane_that_it_finds_empty_is_asked_when_it_is_due_next(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the other loop sleeps by then, since both claims together took all places."""
    monkeypatch.setattr(role, "PERIOD", 60.0)  # nobody else looks
    claim, who, over = Claims.claim, list[Claims](), asyncio.Event()

    async def second_comes_late(self: Claims, *asked: Any, **more: Any) -> Any:
        who.append(self)
        if self is not who[0]:
            await over.wait()
            await asyncio.sleep(0.2)
        took = await claim(self, *asked, **more)
        over.set()
        return took

    monkeypatch.setattr(Claims, "claim", second_comes_late)
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=10, prefetch=990)
    later = NewTask(task_type="t", payload="2", delay=1.5)
    await house.store.create([*[NewTask(task_type="t", payload="1") for _ in range(500)], later])
    ids = await heard(man, 3)
    assert len(ids) == 501
    assert len({*map(id, who)}) == 2, "both claimed"


async def gone_out(house: House) -> bool:
    return not await sleeping(house)


# Each row takes its time, as large ones do.
SLOW = """
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.004); return new; end $$;
create trigger slow before update on tasks_live for each row when (new.status = 'QUEUED') execute function slow()
"""


async def test_a_claim_that_takes_too_long_is_made_smaller(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(role, "PLANS", f"{PLANS}; set statement_timeout = '400ms'")
    await house.store.create([NewTask(task_type="t", payload="1") for _ in range(300)])
    async with house.store.pool.connection() as connection:
        await connection.execute(SLOW)
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=300)
    async with asyncio.timeout(15):
        await man.take(300)
