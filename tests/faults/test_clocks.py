"""Clocks that are wrong: those of our processes, and that of the database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from faults.checker import FOREVER, Absence
from faults.clocks import COMPILER, WrongClock
from faults.cluster import API, LEASE, SCHEDULERS, WORKERS, Cluster, cluster, free_ports
from faults.database import Server
from faults.scenario import scenario
from faults.waiting import now, until

HOUR, DAY = 3600.0, 86400.0
pytestmark = [
    pytest.mark.faults,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(COMPILER is None, reason="a wrong clock is a few lines of C, and there is no cc here: install gcc"),
]
WRONG = {SCHEDULERS[0]: DAY, SCHEDULERS[1]: -DAY, API: -HOUR, WORKERS[0]: HOUR, WORKERS[1]: -DAY, WORKERS[2]: DAY}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wrong(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> AsyncIterator[Cluster]:
    """A cluster in which no process but PostgreSQL knows the time. Durations are right everywhere: the monotonic clock is left alone."""
    folder = tmp_path_factory.mktemp("faults")
    lies = {name: WrongClock(folder, name, offset).environment for name, offset in WRONG.items()}
    async with cluster(folder, postgres_bin, settings=lies) as one:
        yield one


async def test_f28_the_clocks_of_all_processes_are_wrong(wrong: Cluster) -> None:
    async with scenario("F28", wrong) as row:
        for name in WRONG:
            said = datetime.fromisoformat(str(wrong.processes[name].events()[0]["timestamp"]))
            assert abs(said.timestamp() - now()) > 1800, "its clock is wrong indeed"
        over = wrong.count("a worker's session is over")
        later = await row.client.post_all(20, delay=3)
        due = datetime.fromtimestamp(now() + 2, UTC)
        appointed = await row.client.post_all(20, run_at=due.isoformat())
        row.load(rate=40, seconds=2 * LEASE)
        seen = await row.drained()
        assert wrong.count("a worker's session is over") == over, "a lease was lost"
        assert seen.rerun == set()
        starts = {task: runs[0].start for task, runs in seen.runs_by_task.items()}
        delays = [starts[task] - row.client.sent_at[task] - 3 for task in later]
        late = [starts[task] - due.timestamp() for task in appointed]
        assert min(*delays, *late) >= 0, "a task started before its time"
        row.figure("clocks a day wrong either way: a task with a delay starts late by", max(delays), bound=1)
        row.figure("… one with a run_at by the database's clock", max(late), bound=1)
        at_once = sorted(starts[task] - sent for task, sent in row.client.sent_at.items() if task not in {*later, *appointed})
        row.figure("… 99 % of the others after their POST", at_once[int(len(at_once) * 0.99)], bound=1)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_f29_the_clock_of_the_database_jumps(tmp_path: Path, postgres_bin: Path | None) -> None:
    clock = WrongClock(tmp_path, "postgres")
    server = Server(tmp_path / "postgres", free_ports(1)[0], postgres_bin, environment=clock.environment)
    async with cluster(tmp_path, None, server=server) as town, scenario("F29", town) as row:
        row.longest_hold = FOREVER  # by that clock it is an hour

        async def jump(offset: float, what: str) -> None:
            tasks = await row.client.post_all(9, seconds=2 * LEASE)
            await until(lambda: len(row.runs(tasks)) == len(tasks), within=20, what="long tasks that run")
            jumped = now()
            clock.set(offset)
            ((told,),) = await town.server.ask("select extract(epoch from clock_timestamp())::float8")
            assert abs(told - now() - offset) < 60, "the clock has jumped indeed"
            town.absences += [Absence(town.pid(name), jumped, jumped + LEASE) for name in WORKERS]

            async def cleared() -> bool:
                held = "select 1 from tasks_live where id = any(%s::uuid[]) and status in ('QUEUED', 'RUNNING') and epoch = 1"
                return not await town.server.ask(held, [tasks])

            await until(cleared, within=30, what="that no task is held")
            row.figure(f"the database's clock jumps by an hour {what}: nothing held is older after", now() - jumped, bound=2 * LEASE + 2)

        await jump(HOUR, "ahead")
        await row.load(rate=30, seconds=4)
        await row.drained(60)
        await jump(0.0, "back")
        clock.set(HOUR)  # what was due by then is not due for an hour otherwise
        seen = await row.drained(60)
        row.note(f"tasks that ran again: {len(seen.rerun)}")
        assert max(len(runs) for runs in seen.runs_by_task.values()) <= 2, "one more run each, and no more"
        assert {one.status for one in seen.rows} == {"COMPLETED"}
