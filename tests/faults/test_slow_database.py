"""PostgreSQL that restarts, fails over, is locked, is full, or keeps an old snapshot: the rows that take long."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from faults.checker import Evidence
from faults.cluster import Cluster, cluster, free_ports
from faults.database import Server
from faults.scenario import Scenario, scenario
from faults.waiting import now, until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
OVER = "a worker's session is over"


def waits(row: Scenario, seen: Evidence, since: float = 0.0, to: float = float("inf")) -> list[float]:
    """Seconds from POST to start of the tasks that were POSTed between, in order."""
    sent = row.client.sent_at
    return sorted(runs[0].start - sent[task] for task, runs in seen.runs_by_task.items() if task in sent and since <= sent[task] < to)


def p99(values: list[float]) -> float:
    return values[int(len(values) * 0.99)]


async def test_f12_postgres_restarts_ten_times(town: Cluster) -> None:
    async with scenario("F12", town) as row:
        over, pauses = town.count(OVER), []
        row.longest_hold = 60
        load = row.load(rate=40, seconds=35)
        long = await row.client.post_all(9, seconds=20)
        await until(lambda: len(row.runs(long)) == len(long), within=10, what="long tasks that run")
        for _ in range(10):
            await town.server.stop()
            await town.server.start()
            pauses.append(await row.starts_after(now(), within=10))
            await asyncio.sleep(1)
        await load
        seen = await row.drained()
        row.figure("ten restarts (-m fast): the first start after one is ready, at most", max(pauses), bound=2)
        row.figure("… the slowest answer", row.client.slowest, bound=5, gate=2)
        assert set(row.client.refused.values()) <= {503}
        assert seen.rerun == set(), "a live worker's task ran again"
        assert town.count(OVER) == over


@pytest.mark.parametrize("seconds", [2, 10])
async def test_f19_a_table_is_locked(town: Cluster, seconds: int) -> None:
    async with scenario(f"F19/{seconds}", town) as row:
        over = town.count(OVER)
        row.longest_hold = 60
        load = row.load(rate=40, seconds=seconds + 4)
        long = await row.client.post_all(9, seconds=seconds + 1)
        await until(lambda: len(row.runs(long)) == len(long), within=10, what="long tasks that run")
        async with await psycopg.AsyncConnection.connect(town.server.dsn) as connection:
            await connection.execute("lock table tasks")
            await asyncio.sleep(seconds)  # the fault itself
        row.figure(f"all of tasks locked for {seconds} s: the first start afterwards", await row.starts_after(now(), within=10), bound=1)
        await load
        seen = await row.drained()
        assert set(row.client.refused.values()) <= {503}
        assert seen.rerun == set()
        assert town.count(OVER) == over, "heartbeats need no task"


async def test_f18_an_old_snapshot_is_held(town: Cluster) -> None:
    async with scenario("F18", town) as row:
        load = row.load(rate=150, seconds=75, each=0.005)
        began = now()
        await asyncio.sleep(15)
        async with await psycopg.AsyncConnection.connect(town.server.dsn) as connection:
            await connection.execute("set transaction isolation level repeatable read")
            await connection.execute("select count(*) from tasks")
            await load  # the fault itself
        seen = await row.drained()
        before, late = p99(waits(row, seen, began + 2, began + 15)), p99(waits(row, seen, began + 45))
        row.note(f"150 tasks a second, a snapshot held for 60 s: 99 % start in {late:.3f} s, and in {before:.3f} s before it")
        assert late < 3 * max(before, 0.05)
        assert seen.rerun == set()


@pytest.mark.parametrize("mode", ["on", "off"])
async def test_f14_the_primary_is_lost(tmp_path: Path, postgres_bin: Path | None, mode: str) -> None:
    """With a synchronous standby nothing is lost. Without one, what had not reached it is; the row says how much."""
    options = {"wal_level": "replica", "max_wal_senders": "4"}
    primary = Server(tmp_path / "postgres", free_ports(1)[0], postgres_bin, options=options)
    async with cluster(tmp_path, None, proxied=True, server=primary) as town:
        standby = await primary.standby(tmp_path / "standby", free_ports(1)[0])
        if mode == "on":
            await primary.ask("alter system set synchronous_standby_names = '*'")
            await primary.ask("select pg_reload_conf()")

            async def in_step() -> bool:
                return bool(await primary.ask("select 1 from pg_stat_replication where sync_state = 'sync'"))

            await until(in_step, within=20, what="a synchronous standby")
        try:
            # Claims that the standby never saw are not in its history.
            async with scenario(f"F14/{mode}", town, but=() if mode == "on" else ("I3", "I5")) as row:
                load = row.load(rate=60, seconds=10)
                await until(lambda: len(row.runs()) > 100, within=20, what="tasks that run")
                await primary.kill()
                town.server = standby
                await standby.ask("select pg_promote()")
                promoted = now()
                for wire in town.wires.values():
                    wire.to = standby.port
                    wire.reset()
                await until(lambda: max(row.client.sent_at.values()) > promoted, within=20, what="a task that is taken")
                row.figure(f"fail-over, synchronous {mode}: tasks are taken after promotion in", now() - promoted, bound=5)
                await load
                await row.drained(60)
                there = {one for (one,) in await standby.ask("select id::text from tasks")}
                lost = [n for n, task in row.client.acknowledged.items() if task not in there]
                row.note(f"synchronous {mode}: {len(lost)} of {len(row.client.acknowledged)} acknowledged tasks are lost")
                if mode == "on":
                    assert lost == []
                assert len(lost) < 60, "more than a second's worth"
                for n in lost:
                    del row.client.acknowledged[n]
        finally:
            primary.discard()
            standby.discard()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0 and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)], check=False).returncode
    )
    if not mounted:
        pytest.skip("no small file system can be mounted here: that needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_f20_the_disk_is_full(tmp_path: Path, postgres_bin: Path | None, small_disk: Path) -> None:
    options = {"max_wal_size": "64MB", "min_wal_size": "32MB", "shared_buffers": "16MB"}
    server = Server(small_disk / "postgres", free_ports(1)[0], postgres_bin, options=options)
    async with cluster(tmp_path, None, server=server) as town, scenario("F20", town) as row:
        row.load(rate=40, seconds=25)
        await until(lambda: len(row.runs()) > 40, within=20, what="tasks that run")
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            with pytest.raises(OSError, match="No space"):
                while True:
                    file.write(bytes(1 << 16))
            await until(lambda: len(row.client.refused) + len(row.client.unknown) > 40, within=40, what="tasks that are refused")
            said = set(row.client.refused.values())
        await asyncio.sleep(2)
        assert shutil.disk_usage(small_disk).free < 1 << 20
        ballast.unlink()
        freed = now()
        if not server.alive:
            await server.start()  # without room for its log PostgreSQL ends itself
        await until(lambda: max(row.client.sent_at.values()) > freed, within=20, what="a task that is taken")
        row.figure("the disk is full, and has room again: tasks are taken after", now() - freed, bound=5)
        seen = await row.drained(60)
        assert said <= {503}
        row.note(f"acknowledged and there: {len(seen.acknowledged)}")
