"""Schedulers and the API that die, or are asked to leave."""

import signal
from itertools import pairwise

import pytest
from faults.checker import FOREVER
from faults.cluster import API, GRACE, LEASE, WORKERS, Cluster
from faults.scenario import scenario
from faults.waiting import now, until

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_f06_a_scheduler_is_killed(town: Cluster) -> None:
    async with scenario("F06", town) as row:
        row.load(rate=60, seconds=5, each=0.3)
        await until(lambda: len(row.runs()) > 40, within=20, what="tasks that run")
        victim = town.scheduler_of("worker-1")
        stranded = [name for name in WORKERS if town.scheduler_of(name) == victim]
        before = {name: len(town.processes[name].events("connected")) for name in stranded}
        killed = now()
        town.processes[victim].kill()

        def reattached() -> bool:
            return all(len(town.processes[name].events("connected")) > before[name] for name in stranded)

        await until(reattached, within=10, what="a connection to the other one")
        row.figure(f"kill -9 of a scheduler: its {len(stranded)} workers talk to the other one after", now() - killed, bound=2)
        seen = await row.drained()
        assert seen.rerun == set(), "a task that had started ran again"
        starts = sorted(run.start for run in seen.runs if run.start > killed - 0.1)
        row.figure("… the longest pause between two starts", max(later - earlier for earlier, later in pairwise(starts)), bound=2)


async def test_f34_a_scheduler_and_the_api_are_asked_to_stop(town: Cluster) -> None:
    async with scenario("F34", town) as row:
        load = row.load(rate=60, seconds=6)
        await until(lambda: len(row.runs()) > 40, within=20, what="tasks that run")
        victim = town.scheduler_of("worker-1")
        asked = now()
        town.processes[victim].signal(signal.SIGTERM)
        code = await town.processes[victim].ended(within=30)
        row.figure("SIGTERM of a scheduler: gone after", now() - asked, bound=GRACE + 2)
        assert code == 0
        gone = now()
        await until(lambda: any(run.start > gone for run in row.runs()), within=10, what="tasks that run after it")
        stopping = now()
        town.processes[API].signal(signal.SIGTERM)
        code = await town.processes[API].ended(within=30)
        row.figure("SIGTERM of the API under load: gone after", now() - stopping, bound=GRACE + 2)
        assert code == 0
        await load
        seen = await row.drained()
        # A connection that the kernel had accepted and the API had not is reset when the door closes.
        assert not set(row.client.unknown) & {row.n for row in seen.rows}, "a request that the API had taken was not answered"
        assert len(row.client.unknown) <= 10
        assert set(row.client.refused.values()) <= {0, 503}
        assert seen.rerun == set()
        starts = sorted(run.start for run in seen.runs if asked - 0.1 < run.start < stopping)
        row.figure("… the longest pause between two starts", max(later - earlier for earlier, later in pairwise(starts)), bound=1)


async def test_f08_a_scheduler_is_paused(town: Cluster) -> None:
    async with scenario("F08", town) as row:
        over = town.count("a worker's session is over")
        row.load(rate=60, seconds=4, each=0.1)
        await until(lambda: len(row.runs()) > 40, within=20, what="tasks that run")
        victim = town.scheduler_of("worker-1")
        town.processes[victim].signal(signal.SIGSTOP)
        paused = now()
        try:
            await row.drained(within=4 * LEASE)
            row.figure("SIGSTOP of a scheduler: all is done by the others after", now() - paused, bound=4 + LEASE + 1)
        finally:
            town.processes[victim].signal(signal.SIGCONT)
        seen = await row.drained()
        assert town.count("a worker's session is over") == over, "a lease was lost"
        assert seen.rerun == set()


async def test_f33_all_stop_while_the_database_is_away(town: Cluster) -> None:
    async with scenario("F33", town) as row:
        row.longest_hold = FOREVER  # nobody is there until the machine has started everything again
        await row.client.post_all(40, seconds=0.3)
        await until(lambda: len(row.runs()) > 20, within=20, what="tasks that run")
        await town.server.crash()
        asked = now()
        for process in town.processes.values():
            process.signal(signal.SIGTERM)
        codes = [await process.ended(within=3 * (GRACE + 2)) for process in town.processes.values()]
        row.figure("SIGTERM of all without a database: gone after", now() - asked, bound=GRACE + 2)
        assert set(codes) == {0}
        await town.server.start()
        await town.start()
