"""Bad networks between workers and schedulers."""

import asyncio

import pytest
from faults.cluster import LEASE, POSTGRES, SCHEDULERS, Cluster
from faults.proxy import DOWN, UP
from faults.scenario import scenario
from faults.waiting import until

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]
PROXIED = True
TIMES = 5


async def test_f26_connections_are_reset_again_and_again(town: Cluster) -> None:
    async with scenario("F26", town) as row:
        over = town.count("a worker's session is over")
        row.load(rate=60, seconds=TIMES + 2, each=0.1)
        long = await row.client.post_all(6, seconds=TIMES)
        await until(lambda: len(row.runs(long)) == len(long), within=10, what="long tasks that run")
        broken = 0
        for _ in range(TIMES):
            broken += sum(town.proxies[name].reset() for name in SCHEDULERS)
            await asyncio.sleep(1)  # the fault itself
        seen = await row.drained()
        row.note(f"{broken} connections reset in {TIMES} s")
        assert broken >= TIMES * 3, "three workers have two connections each, when they are not just about to connect"
        assert town.count("a worker's session is over") == over, "a lease was lost"
        assert seen.rerun == set()


async def test_f24_results_vanish_on_the_way(town: Cluster) -> None:
    async with scenario("F24", town) as row:
        over = town.count("a worker's session is over")
        row.load(rate=60, seconds=5, each=0.1)
        await until(lambda: len(row.runs()) > 40, within=10, what="tasks that run")
        for name in SCHEDULERS:
            town.proxies[name].swallows = {UP}
        await asyncio.sleep(LEASE / 2)  # the fault itself
        for name in SCHEDULERS:
            town.proxies[name].flow()
        seen = await row.drained()
        assert town.count("a worker's session is over") == over, "a lease was lost"
        assert seen.rerun == set(), "results were lost, and their tasks ran again"


async def test_f23_the_answers_of_the_database_vanish(town: Cluster) -> None:
    async with scenario("F23", town) as row:
        await row.client.post_all(600, seconds=0.3)  # a backlog: whenever a slot is free, there is a claim under way
        for _ in range(4):
            town.proxies[POSTGRES].swallows = {DOWN}
            await asyncio.sleep(0.3)  # the fault itself: what is committed now, nobody is told
            town.proxies[POSTGRES].flow()
            await asyncio.sleep(0.3)
        seen = await row.drained()
        unheard = {c.task for c in seen.changes if c.status == "PENDING" and c.op == "UPDATE"}
        row.note(f"claims of which nobody was told: {len(unheard)} tasks")
        assert unheard, "the fault met no claim"
        assert seen.rerun == set()
