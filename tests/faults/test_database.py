"""PostgreSQL that crashes, connections that it ends, hints that do not come."""

import asyncio
import random

import pytest
from faults.cluster import LEASE, Cluster
from faults.scenario import scenario
from faults.waiting import now, until

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
OURS = "from pg_stat_activity where application_name = 'taskrunner' and backend_type = 'client backend'"


async def test_f11_postgres_crashes(town: Cluster) -> None:
    async with scenario("F11", town) as row:
        over = town.count("a worker's session is over")
        load = row.load(rate=60, seconds=2 * LEASE + 4)
        long = await row.client.post_all(12, seconds=2 * LEASE)
        await until(lambda: len(row.runs(long)) == len(long), within=10, what="long tasks that run")
        await town.server.crash()
        await asyncio.sleep(2 * LEASE)  # the fault itself
        await town.server.start()
        ready = now()
        await until(lambda: any(run.start > ready for run in row.runs()), within=10, what="the first start")
        row.figure("pg_ctl stop -m immediate for two leases: first start after ready", now() - ready, bound=2)
        await load
        seen = await row.drained()
        assert set(row.client.refused.values()) <= {503}, "while the database is away the API says so"
        assert row.client.slowest < 10, "no request hangs"
        assert seen.rerun & set(long) == set(), "a live worker's task ran again"
        assert town.count("a worker's session is over") == over
        row.note(f"the slowest answer took {row.client.slowest:.2f} s; tasks that ran again: {len(seen.rerun)}")


async def test_f13_connections_are_ended_at_random(town: Cluster) -> None:
    async with scenario("F13", town) as row:
        row.load(rate=60, seconds=7)
        ended = 0
        for _ in range(25):
            backends = await town.server.ask(f"select pid {OURS}")
            if backends:
                await town.server.ask("select pg_terminate_backend(%s)", random.choice(backends))
                ended += 1
            await asyncio.sleep(0.2)  # the fault itself
        seen = await row.drained()
        assert set(row.client.refused.values()) <= {503}
        row.note(f"{ended} connections ended: {len(seen.rerun)} tasks ran again")
        assert len(seen.rerun) == 0, "a live worker's task ran again"


async def listeners(town: Cluster) -> list[tuple[int]]:
    return await town.server.ask(f"select pid {OURS} and query = 'listen taskrunner'")


async def test_f16_nobody_listens(town: Cluster) -> None:
    async with scenario("F16", town) as row:
        load = row.load(rate=30, seconds=5)
        ended = 0
        while not load.done():
            for (pid,) in await listeners(town):
                await town.server.ask("select pg_terminate_backend(%s)", [pid])
                ended += 1
            await asyncio.sleep(0.02)  # the fault itself
        over = now()
        seen = await row.drained()
        assert ended > 2
        waits = sorted(runs[0].start - row.client.sent_at[task] for task, runs in seen.runs_by_task.items())
        row.figure(f"LISTEN ended {ended} times: 99 % start after their POST within", waits[int(len(waits) * 0.99)], bound=1.2)

        async def all_listen() -> bool:
            return len(await listeners(town)) == 2

        await until(all_listen, within=30, what="two listeners")
        row.figure("… both listen again after", now() - over, bound=15, gate=1)


async def test_f15_the_database_becomes_a_standby(town: Cluster) -> None:
    async with scenario("F15", town) as row:
        load = row.load(rate=60, seconds=6)
        long = await row.client.post_all(9, seconds=3)
        await until(lambda: len(row.runs(long)) == len(long), within=10, what="long tasks that run")
        await town.server.ask("alter system set default_transaction_read_only = on")
        await town.server.ask("select pg_reload_conf()")
        await until(lambda: len(row.client.refused) > 30, within=10, what="tasks that are refused")
        await town.server.ask("alter system reset default_transaction_read_only")
        await town.server.ask("select pg_reload_conf()")
        writable = now()
        await until(lambda: max(row.client.sent_at.values()) > writable, within=15, what="a task that is taken")
        row.figure("25006: tasks are taken again after", now() - writable, bound=5)
        await load
        seen = await row.drained()
        assert set(row.client.refused.values()) == {503}
        assert seen.rerun == set(), "a live worker's task ran again"
