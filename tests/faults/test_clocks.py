"""Clocks that are wrong: those of our processes, and that of the database."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from faults.clocks import COMPILER, WrongClock
from faults.cluster import API, LEASE, SCHEDULERS, WORKERS, Cluster, cluster
from faults.scenario import scenario
from faults.waiting import now

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
