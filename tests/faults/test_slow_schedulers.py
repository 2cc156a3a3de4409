"""No scheduler at all, a herd of workers, and a new version: the rows that take long."""

import asyncio
import os
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
import pytest_asyncio
from faults.cluster import API, API2, LEASE, SCHEDULERS, WORKERS, Cluster, cluster
from faults.processes import TESTS, end_with_us, plain_environment
from faults.scenario import scenario
from faults.waiting import now, until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
OVER = "a worker's session is over"
HERD, PATIENT = 200, 15.0
BEFORE = "9564b8e"  # a version whose schema ends with 00001


async def test_f07_no_scheduler_for_two_leases(town: Cluster) -> None:
    async with scenario("F07", town) as row:
        load = row.load(rate=40, seconds=2 * LEASE + 6)
        long = await row.client.post_all(9, seconds=LEASE)
        await until(lambda: len(row.runs(long)) == len(long), within=10, what="long tasks that run")
        for name in SCHEDULERS:
            town.processes[name].kill()
        await asyncio.sleep(2 * LEASE)  # the fault itself
        back = town.launch(SCHEDULERS[0])
        await back.said("ready")
        took = await row.starts_after(now(), within=20)
        row.figure("no scheduler for two leases: the first start after one is ready", took, bound=2)
        await load
        seen = await row.drained()
        assert row.client.refused == {}, "tasks are taken without a scheduler"
        row.note(f"tasks that ran again: {len(seen.rerun)}")
        assert seen.rerun == set(), "a live worker's task ran again"


@contextmanager
def herd(town: Cluster) -> Iterator[None]:
    """Two hundred idle workers, in four processes."""
    addresses = ",".join(f"127.0.0.1:{town.ports[name]}" for name in SCHEDULERS)
    command = [sys.executable, "-m", "faults.herd", str(HERD // 4), addresses]
    started = []
    try:
        for n in range(4):
            with (town.folder / f"herd.{n}.log").open("wb") as log:
                started.append(subprocess.Popen(command, env=plain_environment(), stdout=log, stderr=log, preexec_fn=end_with_us))  # noqa: PLW1509 — one system call, in a child of a process without threads
        yield
    finally:
        for process in started:
            process.kill()
            process.wait(10)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> AsyncIterator[Cluster]:
    """A cluster with the lease that it has where nobody says otherwise: one machine cannot be 200."""
    settings = {name: {"TASKRUNNER_LEASE": str(PATIENT)} for name in (*SCHEDULERS, API, *WORKERS)}
    async with cluster(tmp_path_factory.mktemp("faults"), postgres_bin, settings=settings) as one:
        yield one


async def test_f27_a_herd_comes_back(patient: Cluster) -> None:
    town, ask = patient, patient.server.ask

    async def everybody(since: float) -> bool:
        """Whether each worker has beaten since, on a stream that is not lost."""
        ((n,),) = await ask(
            "select count(*) from sessions where status = 'LIVE' and stream_lost_at is null and beat_at > to_timestamp(%s)", [since]
        )
        return int(n) >= HERD + len(WORKERS)

    async with scenario("F27", town) as row:
        began = now()
        with herd(town):
            await until(lambda: everybody(now() - PATIENT), within=120, what=f"{HERD} workers")
            row.note(f"{HERD} workers came within {now() - began:.1f} s")
            over = town.count(OVER)
            await town.server.stop()
            await asyncio.sleep(LEASE)
            await town.server.start()
            ready = now()
            await until(lambda: everybody(ready), within=40, what="everybody")
            row.figure(f"PostgreSQL restarts under {HERD} workers: all have beaten after", now() - ready, bound=10)
            assert town.count(OVER) == over, "a lease was lost"
            killed = now()
            town.processes[SCHEDULERS[0]].kill()
            await until(lambda: everybody(killed + 0.5), within=40, what="everybody")
            row.figure("one of two schedulers is killed: all are with the other one after", now() - killed, bound=10)
            assert town.count(OVER, among=SCHEDULERS[1:]) <= over, "a lease was lost"
            seen = await row.client.post_all(30)
            await until(lambda: len(row.runs(seen)) == len(seen), within=20, what="tasks that run")


@pytest.fixture(scope="module")
def version_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of that commit."""
    top = TESTS.parent
    found = subprocess.run(["git", "-C", str(top), "archive", BEFORE, "app", "schema", "proto"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"the version before is not here: {found.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="fully_trusted")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def old(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None, version_before: Path) -> AsyncIterator[Cluster]:
    """A cluster of the version before."""
    code = {"PYTHONPATH": f"{version_before / 'app'}{os.pathsep}{TESTS}"}
    settings = dict.fromkeys((*SCHEDULERS, API, API2, *WORKERS), code)
    async with cluster(tmp_path_factory.mktemp("faults"), postgres_bin, apis=(API, API2), settings=settings) as one:
        one.settings.clear()  # whatever is started from now on is new
        yield one


async def test_f35_a_new_version_takes_over_one_by_one(old: Cluster) -> None:
    ask, doors = old.server.ask, {name: f"http://127.0.0.1:{old.ports[name]}" for name in (API, API2)}
    async with scenario("F35", old) as row:
        ((before,),) = await ask("select max(version_id) from goose_db_version")
        row.client.turn_to(*doors.values())
        load = row.load(rate=50, seconds=40, each=0.1)
        for name in (*SCHEDULERS, API, API2, *WORKERS):
            others = [door for one, door in doors.items() if one != name]
            row.client.turn_to(*others)  # as a balancer does that asks /readyz
            await asyncio.sleep(0.2)
            old.ask(name)
            assert await old.processes[name].ended(within=30) == 0
            process = old.launch(name)
            await process.said("connected" if name in WORKERS else "ready")
            if name not in WORKERS:
                await row.starts_after(now(), within=20)
            if name in doors:
                await until(old._open, within=20, what="the door")
            row.client.turn_to(*doors.values())
        ((after,),) = await ask("select max(version_id) from goose_db_version")
        assert after > before == 1, "the new version has a newer schema, or this shows nothing"
        await load
        seen = await row.drained(60)
        wrong = len(row.client.refused) + len(row.client.unknown)
        row.note(
            f"schema {before} to {after} under load: {wrong} of {len(seen.rows) + wrong} requests failed, {len(seen.rerun)} tasks ran again"
        )
        assert set(row.client.refused.values()) <= {503}
        assert wrong <= len(seen.rows) * 0.001
        assert seen.second_runs().keys() <= {"asked to stop"}
