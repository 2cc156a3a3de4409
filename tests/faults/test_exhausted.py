"""PostgreSQL whose connections are all taken by somebody else."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from faults.cluster import LEASE, Cluster, cluster, free_ports
from faults.database import Server
from faults.scenario import scenario
from faults.waiting import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]
CONNECTIONS = 60


class Hog:
    """Takes every connection that is to be had, and those that others give back."""

    def __init__(self, town: Cluster) -> None:
        self._dsn = town.server.at(town.server.port, user="owner")
        self._stack = AsyncExitStack()
        self.taken = 0
        self.full = asyncio.Event()

    async def run(self) -> None:
        try:
            while True:
                try:
                    await self._stack.enter_async_context(await psycopg.AsyncConnection.connect(self._dsn, autocommit=True))
                    self.taken += 1
                except psycopg.OperationalError:
                    self.full.set()
                    await asyncio.sleep(0.05)
        finally:
            await self._stack.aclose()


async def test_f21_all_connections_are_taken(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> None:
    """What holds leases and writes outcomes has its connections for life; the door says 503 where it has none."""
    folder = tmp_path_factory.mktemp("exhausted")
    server = Server(folder / "postgres", free_ports(1)[0], postgres_bin, options={"max_connections": str(CONNECTIONS)})
    async with cluster(folder, postgres_bin, server=server) as town, scenario("F21", town) as row:
        over = town.count("a worker's session is over")
        long = await row.client.post_all(9, seconds=2.5 * LEASE)
        await until(lambda: len(row.runs(long)) == len(long), within=10, what="long tasks that run")
        hog = Hog(town)
        taking = row.background(hog.run())
        await hog.full.wait()
        load = row.load(rate=60, seconds=2 * LEASE)
        await load
        waiting = [run for run in row.runs() if run.task not in long]
        assert len(waiting) > 60, "tasks are created, run and settled on the connections that there are"
        taking.cancel()
        with suppress(asyncio.CancelledError):
            await taking
        seen = await row.drained()
        assert set(row.client.refused.values()) <= {503}
        assert row.client.slowest < 10, "no request hangs"
        assert seen.rerun == set()
        assert town.count("a worker's session is over") == over, "a lease was lost"
        row.note(f"a stranger held {hog.taken} of {CONNECTIONS} connections; the slowest answer took {row.client.slowest:.2f} s")
