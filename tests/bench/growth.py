"""Whether a claim costs the same whatever else is in the tables: ``python growth.py [--scale 1.0]``.

Each case fills the database in its own way and then drains tasks through a real scheduler and worker, beside a plain case of the same run.
The figure is PostgreSQL's CPU for a drained task. ``--scale 0.1`` is a tenth of the rows and of the ten minutes.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from drain import LOAD, _settled
from rig import Rig, cost, once, rig, until

DRAINED = 100_000
Connection = psycopg.Connection[Any]

PENDING = """
insert into tasks_live (task_type, payload, run_at)
select 'noop', '{"i": -1, "t": 0}', now() + interval '1 day' from generate_series(1, %s)"""
UNHANDLED = "insert into tasks_live (task_type, payload) select 'nobody', '{}' from generate_series(1, %s)"
FINISHED = """
insert into tasks_finished (task_type, payload, status, finished_at, epoch, attempt)
select 'noop', '{}', 'COMPLETED', now(), 1, 1 from generate_series(1, %s)"""
TRICKLE = """
insert into tasks_live (task_type, payload)
select 'noop', jsonb_build_object('i', -1, 't', 0, 'p', repeat('x', 55)) from generate_series(1, %s)"""
QUEUES = """
insert into tasks_live (task_type, queue, payload)
select 'noop', 'q' || i %% 500, jsonb_build_object('i', i, 't', 0, 'p', repeat('x', 55)) from generate_series(0, %s - 1) i"""


def rows(statement: str, n: int) -> Callable[[Connection], None]:
    """Fill a table with ``n`` rows, half a million at a time."""

    def fill(connection: Connection) -> None:
        for at in range(0, n, 500_000):
            connection.execute(statement, (min(500_000, n - at),))

    return fill


async def drained(
    rig: Rig, *, before: Callable[[Connection], None] | None = None, load: str = LOAD, workers: int = 1, held: float = 0
) -> dict[str, Any]:
    """PostgreSQL's CPU for each of 100,000 tasks, in a database that ``before`` has filled, or after a snapshot of ``held`` seconds."""
    dsn = await rig.database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        if before:
            before(connection)
        connection.execute("vacuum analyze")
        with _snapshot(dsn) if held else _nothing():
            crew = [rig.start("scheduler", dsn=dsn)]
            crew += [rig.start("worker", dsn="", TASKRUNNER_SLOTS="100" if workers == 1 else "10") for _ in range(workers)]
            if held:
                _trickle(connection, held)
            base = _settled(connection)
            connection.execute(load, (DRAINED,))
            with cost(rig, scheduler=crew[0]) as cpu:
                began = time.monotonic()
                until(lambda: _settled(connection) >= base + DRAINED, seconds=600)
                seconds = time.monotonic() - began
            rig.stop(*crew)
    seen = [row for row in rig.seen() if row[0] >= 0]
    if not once(seen, DRAINED):
        raise AssertionError(f"void: {len(seen)} starts")
    return {"postgres_us": cpu["postgres"] / DRAINED * 1e6, "scheduler_us": cpu["scheduler"] / DRAINED * 1e6, "rate": DRAINED / seconds}


def _trickle(connection: Connection, seconds: float) -> None:
    """2,000 tasks a second, for as long as the snapshot is to be held."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        connection.execute(TRICKLE, (200,))
        time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))


@contextmanager
def _snapshot(dsn: str) -> Iterator[None]:
    """An old snapshot, as a long report holds one: vacuum can remove nothing that died since."""
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select count(*) from tasks_live")
        yield
        connection.rollback()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


async def growth(scale: float) -> dict[str, dict[str, Any]]:
    """All cases; each in a server of its own, with a plain one before it."""

    def n(rows: int) -> int:
        return max(1, int(rows * scale))

    cases: dict[str, dict[str, Any]] = {
        "10,000 pending": {"before": rows(PENDING, 10_000)},
        f"{n(10_000_000):,} pending": {"before": rows(PENDING, n(10_000_000))},
        f"{n(1_000_000):,} that nobody handles": {"before": rows(UNHANDLED, n(1_000_000))},
        f"{n(10_000_000):,} finished": {"before": rows(FINISHED, n(10_000_000))},
        "500 queues": {"load": QUEUES},
        f"{n(200)} workers": {"workers": n(200)},
        f"a snapshot held for {n(600)} s at 2,000 tasks/s": {"held": n(600)},
    }
    figures: dict[str, dict[str, Any]] = {}
    for name, case in cases.items():
        async with rig() as server:
            plain = await drained(server)
            figures[name] = await drained(server, **case) | {"plain_us": plain["postgres_us"], "plain_rate": plain["rate"]}
            figures[name]["ratio"] = figures[name]["postgres_us"] / plain["postgres_us"]
        row = figures[name]
        print(f"{name:<48} {row['postgres_us']:6.1f} µs, plain {row['plain_us']:6.1f} µs, ratio {row['ratio']:.2f}", flush=True)
    return figures


def main() -> None:
    """Measure, print, and keep the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path, default=Path(".cache/bench/growth.json"))
    options = parser.parse_args()
    figures = asyncio.run(growth(options.scale))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    sys.exit(any(row["ratio"] > 1.2 for row in figures.values()))


if __name__ == "__main__":
    main()
