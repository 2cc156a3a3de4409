"""Schedulers and the API that die, or are asked to leave."""

import signal
from itertools import pairwise

import pytest
from faults.cluster import API, GRACE, SCHEDULERS, WORKERS, Cluster
from faults.scenario import scenario
from faults.waiting import now, until

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module")]


async def connections(town: Cluster) -> dict[str, str]:
    """Which scheduler each worker talks to."""
    names = {f"127.0.0.1:{town.ports[name]}": name for name in SCHEDULERS}
    return {name: names[town.processes[name].events("connected")[-1]["scheduler"]] for name in WORKERS}


async def test_f06_a_scheduler_is_killed(town: Cluster) -> None:
    async with scenario("F06", town) as row:
        row.load(rate=60, seconds=5, each=0.3)
        await until(lambda: len(row.runs()) > 40, within=10, what="tasks that run")
        talks = await connections(town)
        victim = talks["worker-1"]
        stranded = [name for name, scheduler in talks.items() if scheduler == victim]
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
        await until(lambda: len(row.runs()) > 40, within=10, what="tasks that run")
        victim = (await connections(town))["worker-1"]
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
        assert row.client.unknown == {}, "a request that the API had taken was not answered"
        assert set(row.client.refused.values()) <= {0, 503}
        assert seen.rerun == set()
        starts = sorted(run.start for run in seen.runs if asked - 0.1 < run.start < stopping)
        row.figure("… the longest pause between two starts", max(later - earlier for earlier, later in pairwise(starts)), bound=1)
