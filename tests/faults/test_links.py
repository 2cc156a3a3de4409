"""Bad networks between workers and schedulers."""

import asyncio

import psutil
import pytest
from faults.checker import Absence
from faults.cluster import LEASE, SCHEDULERS, Cluster, sessions_of
from faults.proxy import DOWN, UP
from faults.scenario import busiest, open_at, scenario
from faults.waiting import now, until

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
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
            broken += sum(link.reset() for link in town.links.values())
            await asyncio.sleep(1)  # the fault itself
        seen = await row.drained()
        row.note(f"{broken} connections reset in {TIMES} s")
        assert broken >= TIMES * 3, "three workers have two connections each, when they are not just about to connect"
        assert town.count("a worker's session is over") == over, f"a lease was lost\n{town.logs()}"
        assert seen.rerun == set()


async def test_f24_results_vanish_on_the_way(town: Cluster) -> None:
    async with scenario("F24", town) as row:
        over = town.count("a worker's session is over")
        row.load(rate=60, seconds=5, each=0.1)
        await until(lambda: len(row.runs()) > 40, within=20, what="tasks that run")
        for link in town.links.values():
            link.swallows = {UP}
        await asyncio.sleep(LEASE / 2)  # the fault itself
        for link in town.links.values():
            link.flow()
        seen = await row.drained()
        assert town.count("a worker's session is over") == over, "a lease was lost"
        assert seen.rerun == set(), "results were lost, and their tasks ran again"


async def test_f23_the_answers_of_the_database_vanish(town: Cluster) -> None:
    wires = [town.wires[name] for name in SCHEDULERS]
    async with scenario("F23", town) as row:
        await row.client.post_all(600, seconds=0.3)  # a backlog: whenever a slot is free, there is a claim under way
        for _ in range(4):
            for wire in wires:
                wire.swallows = {DOWN}
            await asyncio.sleep(0.3)  # the fault itself: what is committed now, nobody is told
            for wire in wires:
                wire.flow()
            await asyncio.sleep(0.3)
        seen = await row.drained()
        unheard = {c.task for c in seen.changes if c.status == "PENDING" and c.op == "UPDATE"}
        row.note(f"claims of which nobody was told: {len(unheard)} tasks")
        assert unheard, "the fault met no claim"
        assert seen.rerun == set()


async def test_f22_a_worker_is_cut_off_without_a_word(town: Cluster) -> None:
    async with scenario("F22", town) as row:
        row.load(rate=40, seconds=4)
        long = await row.client.post_all(12, seconds=1)
        victim = await busiest(row, long)
        pid, cut = town.pid(victim), now()
        links = [link for (worker, _), link in town.links.items() if worker == victim]
        for link in links:
            link.stall(UP, DOWN)
        held = open_at(row.runs(), pid, cut)
        await asyncio.sleep(3 * LEASE)  # the fault itself
        town.absences.append(Absence(pid, cut, now()))
        for link in links:
            link.flow()
        healed = now()

        async def rejoined() -> bool:
            return any(status == "LIVE" for status, _ in await sessions_of(town, pid))

        await until(rejoined, within=10, what="a new session")
        row.figure("no packet for three leases: a new session after", now() - healed, bound=2)
        seen = await row.drained()
        first = [min((run.start for run in seen.runs_by_task[task] if run.holder != pid), default=healed) - cut for task in held]
        row.figure("… its first task runs elsewhere after", min(first), bound=LEASE + 1)
        assert not [run for run in seen.runs if run.holder == pid and cut + LEASE < run.start < healed], "it started a task without a lease"
        accepted = {row.task: row for row in seen.rows}
        assert all(accepted[task].epoch > 1 for task in held), "a late result was accepted"


async def test_f25_a_worker_does_not_read(town: Cluster) -> None:
    async with scenario("F25", town) as row:
        schedulers = [psutil.Process(town.pid(name)) for name in SCHEDULERS]
        before, peak = [one.memory_info().rss for one in schedulers], 0
        victim, pid = "worker-1", town.pid("worker-1")
        for link in (link for (worker, _), link in town.links.items() if worker == victim):
            link.stall(DOWN)
        stalled = now()
        posting = row.background(row.client.post_all(300, ballast="x" * 100_000))
        ran: set[str] = set()
        while now() < stalled + 2 * LEASE or (len(ran) <= 250 and now() < stalled + 10 * LEASE):  # the fault itself
            peak = max(peak, *(one.memory_info().rss - was for one, was in zip(schedulers, before, strict=True)))
            await asyncio.sleep(0.1)
            ran = {run.task for run in row.runs()}
        await posting
        town.absences.append(Absence(pid, stalled, now()))
        for link in town.links.values():
            link.flow()
        seen = await row.drained()
        assert len(ran) > 250, "the others go on"
        assert seen.rerun <= {run.task for run in seen.runs if run.holder == pid}, "only what the worker had by then may run again"
        row.note(f"30 MB of tasks and a worker that does not read: a scheduler grows by {peak / 1e6:.1f} MB")
        assert peak < 3 * 20e6


async def test_f46_numbers_that_need_more_than_32_bits(town: Cluster) -> None:
    ask = town.server.ask
    async with scenario("F46", town) as row:
        sequences = await ask("select sequencename, data_type::text from pg_sequences where sequencename <> 'goose_db_version_id_seq'")
        assert {kind for _, kind in sequences} <= {"bigint"}
        for name, _ in sequences:
            await ask(f"alter sequence {name} restart 3000000000")
        tasks = await row.client.post_all(30, delay=1.5)
        await ask("update tasks_live set epoch = 3000000000 where payload ->> 'scenario' = 'F46'")
        row.load(rate=40, seconds=3)
        seen = await row.drained()
        assert {one.epoch for one in seen.rows if one.task in tasks} == {3000000001}
        assert seen.rerun == set()
