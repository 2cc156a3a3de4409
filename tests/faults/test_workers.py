"""Workers that die, hang, block, or are asked to leave."""

import asyncio
import signal
from pathlib import Path

import pytest
from faults.checker import WAKING
from faults.cluster import GRACE, LEASE, WORKERS, Cluster, cluster, sessions_of
from faults.scenario import busiest, scenario
from faults.waiting import now, until

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


async def test_f01_a_worker_is_killed(town: Cluster) -> None:
    async with scenario("F01", town) as row:
        row.load(rate=60, seconds=4)
        long = await row.client.post_all(9, seconds=2)
        victim = await busiest(row, long)
        pid, killed = town.pid(victim), town.kill(victim)
        seen = await row.drained()
        held = {c.task for c in seen.changes if c.holder == pid}
        assert seen.rerun <= held, "only what the dead worker held may run again"
        again = sorted(min(run.start for run in seen.runs_by_task[task] if run.start > killed) for task in seen.rerun)
        row.figure(f"kill -9 of a worker: the first of its {len(again)} tasks starts again after", again[0] - killed, bound=1)
        row.figure("… the last of them", again[-1] - killed, bound=2)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_f01_a_worker_with_a_hundred_long_tasks_is_killed(tmp_path: Path, postgres_bin: Path | None) -> None:
    roomy = {name: {"TASKRUNNER_SLOTS": "100"} for name in WORKERS}
    async with cluster(tmp_path, postgres_bin, settings=roomy) as town, scenario("F01", town) as row:
        row.longest_hold = 30
        long = await row.client.post_all(200, seconds=15)
        await until(lambda: len(row.runs(long)) == len(long), within=20, what="long tasks that run")
        victim = max(WORKERS, key=lambda name: sum(run.holder == town.pid(name) for run in row.runs(long)))
        pid, killed = town.pid(victim), town.kill(victim)
        seen = await row.drained(60)
        held = {run.task for run in seen.runs if run.holder == pid and run.start < killed}
        assert seen.rerun == held
        again = sorted(min(run.start for run in seen.runs_by_task[task] if run.start > killed) for task in held)
        row.figure(f"kill -9 of a worker with {len(again)} tasks of 15 s: all of them run again after", again[-1] - killed, bound=4)
        assert {one.status for one in seen.rows} == {"COMPLETED"}


async def test_f02_a_worker_is_paused(town: Cluster) -> None:
    async with scenario("F02", town) as row:
        row.load(rate=40, seconds=4)
        long = await row.client.post_all(12, seconds=1)
        victim = await busiest(row, long)
        pid, paused = town.pid(victim), town.pause(victim)
        await asyncio.sleep(3 * LEASE)  # the fault itself
        late = {run.task for run in row.runs() if run.holder == pid and run.end is None}  # a signal takes effect a little later
        resumed = town.resume(victim, paused)

        async def rejoined() -> float:
            return max((began for status, began in await sessions_of(town, pid) if status == "LIVE"), default=0.0)

        row.figure(
            "SIGSTOP for three leases: a new session after SIGCONT in",
            await until(rejoined, within=10, what="a new session") - resumed,
            bound=2,
        )
        fresh = await row.client.post_all(12, seconds=0.2)
        seen = await row.drained()
        by_task = seen.runs_by_task
        assert late, "the paused worker held tasks"
        kept = [by_task[task] for task in late if not any(run.holder != pid and paused < run.start < resumed for run in by_task[task])]
        assert not kept, f"{pid} was stopped from {paused} to {resumed}, and nobody else ran {kept}"
        again = [min(run.start for run in by_task[task] if run.start > paused) - paused for task in late]
        row.figure("… its first task runs elsewhere after", min(again), bound=LEASE + 1)
        row.figure(f"… the last of {len(again)}", max(again), bound=LEASE + 1)
        assert not [run for run in seen.runs if run.holder == pid and run.start > resumed + WAKING and run.task not in fresh], (
            "it started something old"
        )
        accepted = {row.task: row for row in seen.rows}
        assert all(accepted[task].status == "COMPLETED" and accepted[task].epoch > 1 for task in late), "a late result was accepted"


async def test_f03_a_handler_blocks_the_loop(town: Cluster) -> None:
    async with scenario("F03", town) as row:
        over = town.count("a worker's session is over")
        (task,) = await row.client.post_all(1, "blocking", seconds=2 * LEASE)
        row.load(rate=40, seconds=2 * LEASE)
        seen = await row.drained()
        assert town.count("a worker's session is over") == over, "a lease was lost"
        assert seen.rerun == set()
        (run,) = seen.runs_by_task[task]
        waits = sorted(
            one.start - row.client.sent_at[one.task]
            for one in seen.runs
            if one.task in row.client.sent_at and run.start < one.start < (run.end or 0)
        )
        assert waits
        row.figure("time.sleep of two leases on the loop: 99 % of the others start in", waits[int(len(waits) * 0.99)], bound=2.0)


async def test_f32_a_worker_is_asked_to_stop(town: Cluster) -> None:
    async with scenario("F32", town) as row:
        row.load(rate=60, seconds=4)
        long = await row.client.post_all(12, seconds=3 * GRACE)
        victim = await busiest(row, long)
        process, pid = town.processes[victim], town.pid(victim)
        asked = now()
        process.signal(signal.SIGTERM)
        code = await process.ended(within=3 * (GRACE + 2))
        row.figure("SIGTERM of a worker with tasks beyond the grace: gone after", now() - asked, bound=GRACE + 2)
        assert code == 0
        (draining,) = process.events("draining")
        seen = await row.drained()
        runs = [run for run in seen.runs if run.holder == pid]
        assert not [run for run in runs if run.start > asked + 0.5], f"it went on starting tasks after {draining}"
        stopped = {run.task: run for run in runs if run.how == "stopped"}
        assert stopped
        assert seen.rerun == set(stopped), "what it had finished was confirmed"
        final = {row.task: row for row in seen.rows}
        assert {final[task].attempt for task in stopped} == {1}, "the attempt is given back"
        released = {c.task: c.at for c in seen.changes if c.task in stopped and c.status == "PENDING" and c.op == "UPDATE"}
        waits = [seen.runs_by_task[task][1].start - at for task, at in released.items()]
        row.figure("… what it gave back starts elsewhere in", max(waits), bound=1)


async def test_f05_a_task_kills_its_worker(town: Cluster) -> None:
    async with scenario("F05", town) as row:
        reviving = asyncio.ensure_future(town.revive())
        try:
            row.load(rate=40, seconds=4)
            (task,) = await row.client.post_all(1, "poison")
            seen = await row.drained()
        finally:
            reviving.cancel()
        (poison,) = [row for row in seen.rows if row.task == task]
        assert poison.status == "FAILED"
        assert "died" in (poison.error or "")
        starts = seen.runs_by_task[task]
        assert len(starts) <= 4, "once among others, and three times alone"
        neighbours = {other: len(runs) for other, runs in seen.runs_by_task.items() if other != task}
        assert max(neighbours.values()) <= 3, "a neighbour is there for two of the deaths at most"
        assert {row.status for row in seen.rows if row.task != task} == {"COMPLETED"}
        took = starts[-1].start - starts[0].start
        row.note(f"os._exit in a handler: given up after {len(starts)} starts, the last one {took:.1f} s after the first")


async def test_f04_a_handler_does_not_stop(town: Cluster) -> None:
    async with scenario("F04", town) as row:
        tasks = await row.client.post_all(6, "stubborn")
        await row.client.post_all(30)
        seen = await row.drained()
        final = {row.task: row for row in seen.rows}
        assert {final[task].status for task in tasks} == {"FAILED"}
        ends = {c.task: c.at for c in seen.changes if c.leaf == "finished"}
        assert {final[task].error for task in tasks} == {"timed out after 2 s"}
        begins = {c.task: c.at for c in seen.changes if c.status == "QUEUED"}
        over = [ends[task] - begins[task] - 2 for task in tasks]
        row.figure("a child that swallows its cancellation: FAILED after its deadline in", max(over), bound=1)
        fresh = await row.client.post_all(60, seconds=0.05)
        seen = await row.drained()
        assert {row.status for row in seen.rows if row.task in fresh} == {"COMPLETED"}, "the slots are free again"
