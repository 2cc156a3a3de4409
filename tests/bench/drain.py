"""How fast a full queue is worked off: no-op tasks with about 100 bytes of payload, all of it durable, history kept."""

import time
from typing import Any

import psycopg
from rig import Rig, cost, once, until

LOAD = """
insert into tasks_live (task_type, payload)
select 'noop', jsonb_build_object('i', i, 't', 0, 'p', repeat('x', 55)) from generate_series(0, %s - 1) i"""


async def drain(rig: Rig, n: int, *, workers: int = 1, durable: bool = True, **env: str) -> dict[str, Any]:
    """Tasks a second from the first start of a handler until the last one is settled, and the CPU of each process for a task."""
    dsn = await rig.database(durable=durable)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(LOAD, (n,))
        connection.execute("vacuum analyze tasks_live")
        connection.execute("checkpoint")
        scheduler = rig.start("scheduler", dsn=dsn, **env)
        crew = [rig.start("worker", dsn="", **env) for _ in range(workers)]
        until(lambda: _settled(connection) > 0, seconds=30, step=0.001)
        wal = connection.execute("select pg_current_wal_lsn()").fetchone()
        began = _settled(connection)
        with cost(rig, scheduler=scheduler, **{f"worker{k}": one for k, one in enumerate(crew)}) as cpu:
            until(lambda: _settled(connection) >= n, seconds=300)
            ended = time.time()
        bytes_written = connection.execute("select pg_current_wal_lsn() - %s::pg_lsn", wal).fetchone()
        rows = connection.execute(
            "select count(*), count(*) filter (where attempt = 1) from tasks_finished where status = 'COMPLETED'"
        ).fetchone()
        memory = {"scheduler_mb": scheduler.peak(), "worker_mb": max(one.peak() for one in crew)}
    rig.stop(scheduler, *crew)
    seen = rig.seen()
    if not once(seen, n) or rows != (n, n):
        raise AssertionError(f"void: {len(seen)} starts of {len({s[0] for s in seen})} tasks, {rows} completed, of {n}")
    measured = n - began
    micro = {name: round(seconds / measured * 1e6, 1) for name, seconds in cpu.items()}
    return {
        "rate": n / (ended - min(start for _, _, start in seen)),
        "cpu_us": micro,
        "wal_bytes": int(bytes_written[0]) / measured,
        **memory,
    }


def _settled(connection: Any) -> int:
    return int(connection.execute("select coalesce(sum(n), 0) from tally").fetchone()[0])
