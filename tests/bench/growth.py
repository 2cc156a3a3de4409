"""Whether a claim costs the same whatever else is there: ``python growth.py [--scale 1.0] [--only pending,…]``.

Along each axis something grows: rows that wait, rows that nobody handles, history, queues, workers, the age of a snapshot that keeps
vacuum from removing anything. At each point tasks are drained through a real scheduler and real workers. The figures are CPU
microseconds a drained task, of PostgreSQL and of the scheduler; the best of three drains, because a shared machine only ever adds.
``--scale 0.1`` is a tenth of the rows and of the ten minutes. ``curves.py`` draws what this writes.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from drain import LOAD, _settled
from rig import Rig, cost, rig, until

DRAINED = 50_000
FLAT = 1.2  # the last point of an axis over its first one
MOST_AT_ONCE = 500_000  # rows in one insert
Connection = psycopg.Connection[Any]
Point = dict[str, float]

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
select 'noop', 'q' || i %% {}, jsonb_build_object('i', i, 't', 0, 'p', repeat('x', 55)) from generate_series(0, %s - 1) i"""


class Town:
    """A database with a scheduler and workers for one drain after the other."""

    def __init__(self, place: Rig, dsn: str, connection: Connection) -> None:
        self._rig = place
        self._dsn = dsn
        self._connection = connection
        self._due = 0  # tasks that were made to be drained

    def fill(self, statement: str, n: int) -> None:
        """Insert ``n`` rows, and let vacuum and a checkpoint see to them before anything is measured."""
        for at in range(0, n, MOST_AT_ONCE):
            self._connection.execute(statement, (min(MOST_AT_ONCE, n - at),))
        self._connection.execute("vacuum analyze")
        self._connection.execute("checkpoint")

    def best(self, at: float, **how: Any) -> Point:
        """The best of three drains, as the point ``at``."""
        drains = [self.drain(**how) for _ in range(3)]
        point = {name: min(drain[name] for drain in drains) for name in ("postgres_us", "scheduler_us")}
        return {"at": at, **point, "rate": max(drain["rate"] for drain in drains)}

    def drain(self, *, load: str = LOAD, workers: int = 1, crew: Sequence[Any] = ()) -> Point:
        """Load tasks and work them off, with a crew of its own unless there is one. Raises AssertionError when one did not run once."""
        mine = [] if crew else self.crew(workers)
        self._rest()
        self._make(load, DRAINED)
        with cost(self._rig, scheduler=(crew or mine)[0]) as cpu:
            began = time.monotonic()
            self._rest()
            seconds = time.monotonic() - began
        if mine:
            self._rig.stop(*mine)
            self.check(1)
        return {**{f"{name}_us": value / DRAINED * 1e6 for name, value in cpu.items()}, "rate": DRAINED / seconds}

    def _make(self, load: str, n: int) -> None:
        self._connection.execute(load, (n,))
        self._due += n

    def _rest(self) -> None:
        # To ask is to add up the tally, with all dead rows that a snapshot keeps in it: seldom, or it is what is measured.
        until(lambda: _settled(self._connection) >= self._due, seconds=600, step=0.2)

    def crew(self, workers: int) -> list[Any]:
        """A scheduler, a worker, and others that serve another queue: as many processes at work on two cores would measure the cores."""
        scheduler, worker = self._rig.start("scheduler", dsn=self._dsn), self._rig.start("worker", dsn="")
        others = [self._rig.start("worker", dsn="", TASKRUNNER_QUEUES="another") for _ in range(workers - 1)]
        until(lambda: self._connected() == workers, seconds=300)
        return [scheduler, worker, *others]

    def _connected(self) -> int:
        row = self._connection.execute("select count(*) from sessions where status = 'LIVE'").fetchone()
        return int(row[0]) if row else 0

    def check(self, drains: int) -> None:
        """The stopped workers have seen each task of each drain once."""
        numbers = sorted(row[0] for row in self._rig.seen() if row[0] >= 0)
        if numbers != sorted([*range(DRAINED)] * drains):
            raise AssertionError(f"void: {len(numbers)} starts for {drains} drains")

    async def held(self, minutes: Sequence[float]) -> AsyncIterator[Point]:
        """Drains under one snapshot, as a long report holds one, after it was held so long at 2,000 tasks a second."""
        with psycopg.connect(self._dsn) as report:
            report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            report.execute("select count(*) from tasks_live")
            crew = self.crew(1)
            passed = 0.0
            for minute in minutes:
                self._trickle((minute - passed) * 60)
                passed = minute
                point = self.drain(crew=crew)
                yield {"at": minute, **point}
            self._rig.stop(*crew)
            self.check(len(minutes))

    def _trickle(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.monotonic()
            self._make(TRICKLE, 200)
            time.sleep(max(0.0, 0.1 - (time.monotonic() - began)))


async def rows(town: Town, sizes: Sequence[int], statement: str) -> AsyncIterator[Point]:
    """Rows of one kind that become more."""
    there = 0
    for size in sizes:
        town.fill(statement, size - there)
        there = size
        yield town.best(size)


async def queues(town: Town, sizes: Sequence[int]) -> AsyncIterator[Point]:
    """The same tasks, spread over more and more queues."""
    for size in sizes:
        yield town.best(size, load=QUEUES.format(size))


async def workers(town: Town, sizes: Sequence[int]) -> AsyncIterator[Point]:
    """More and more workers are connected, and one of them has the tasks."""
    for size in sizes:
        yield town.best(size, workers=size)


def axes(scale: float) -> dict[str, tuple[str, Callable[[Town], AsyncIterator[Point]]]]:
    """Name → (unit of the axis, how its points are made)."""

    def upto(most: int, *, steps: int) -> list[int]:
        return sorted({max(1, int(most * scale / 10**step)) for step in range(steps)})

    return {
        "pending": ("tasks that are due tomorrow", lambda town: rows(town, upto(10_000_000, steps=4), PENDING)),
        "unhandled": ("tasks that nobody handles", lambda town: rows(town, upto(1_000_000, steps=3), UNHANDLED)),
        "finished": ("finished tasks", lambda town: rows(town, upto(10_000_000, steps=4), FINISHED)),
        "queues": ("queues with the same tasks", lambda town: queues(town, [1, 10, 100, 500])),
        "workers": ("connected workers", lambda town: workers(town, sorted({1, *upto(200, steps=2)}))),
        "snapshot": ("minutes that a snapshot was held", lambda town: town.held([minute * scale for minute in (0, 1, 3, 10)])),
    }


async def growth(scale: float, only: Sequence[str]) -> dict[str, Any]:
    """All axes, each in a server of its own."""
    figures: dict[str, Any] = {}
    for name, (unit, points) in axes(scale).items():
        if only and name not in only:
            continue
        async with rig() as server:
            dsn = await server.database()
            with psycopg.connect(dsn, autocommit=True) as connection:
                town = Town(server, dsn, connection)
                if name != "snapshot":
                    town.drain()  # the first one in a fresh database is dearer
                seen = [point async for point in points(town)]
        ratio = seen[-1]["postgres_us"] / seen[0]["postgres_us"]
        figures[name] = {"unit": unit, "points": seen, "ratio": ratio}
        shown = "  ".join(f"{point['at']:g}: {point['postgres_us']:.1f} + {point['scheduler_us']:.1f}" for point in seen)
        print(f"{name:<10} ratio {ratio:.2f}   µs of PostgreSQL + scheduler a task   {shown}", flush=True)
    return figures


def main() -> None:
    """Measure, print, and keep the figures as JSON. Exit code 1 when an axis is not flat."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="", help="axes, separated by commas; the others stay as they are in the file")
    parser.add_argument("--json", type=Path, default=Path(".cache/bench/growth.json"))
    options = parser.parse_args()
    figures = asyncio.run(growth(options.scale, [word for word in options.only.split(",") if word]))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    known = json.loads(options.json.read_text(encoding="utf-8"))["axes"] if options.only and options.json.exists() else {}
    figures = known | figures
    document = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, "scale": options.scale, "axes": figures}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    sys.exit(any(axis["ratio"] > FLAT for axis in figures.values()))


if __name__ == "__main__":
    main()
