"""Counts over time, and what is live now: read from rows that were summed before, never from the history of tasks."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from psycopg.rows import class_row

from taskrunner.domain.histogram import Histogram
from taskrunner.store.pool import translated
from taskrunner.store.queries import sql
from taskrunner.store.tasks import Store

MOST_FAILURES = 200  # messages that are told apart in an answer


@dataclass(slots=True)
class Point:
    """What happened in a slot of time. ``starts`` is a histogram of how long after their time tasks were claimed."""

    created: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    starts: Histogram = field(default_factory=Histogram)

    def add(self, other: "Point") -> None:
        """Take the other's counts in."""
        for name in ("created", "completed", "failed", "cancelled", "retried"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.starts.add(other.starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What is live of a queue and type. The age is that of the oldest task that could run now, in seconds from its time or creation."""

    queue: str
    task_type: str
    ready: int
    scheduled: int
    queued: int
    running: int
    oldest_ready_age: float | None


class Outcome(NamedTuple):
    """How many tasks of a queue and type ended so, within retention."""

    queue: str
    task_type: str
    outcome: str
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """FAILED tasks whose errors are of one kind: ``message`` is what they have in common, ``example_id`` the latest of them."""

    task_type: str
    message: str
    count: int
    last_at: datetime
    example_id: UUID


class Gauge(NamedTuple):
    """Something measured now: the metric, its labels' values, and how much."""

    name: str
    words: list[str]
    value: float


class Stats:
    """Questions about many tasks. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def points(self, n: int, step: int, *, queue: str | None, task_type: str | None) -> list[tuple[int, Point]]:
        """The last ``n`` slots of ``step`` seconds, oldest first; the last one is not over yet. Each with the second of its beginning."""
        parameters = {"points": n, "step": step, "queue": queue, "task_type": task_type}
        with translated():
            async with self._store.pool.connection() as connection:
                rows = await (await connection.execute(sql("list_points"), parameters, prepare=False)).fetchall()
        last = rows[0][0]
        points = {slot: Point() for slot in range(last - n + 1, last + 1)}
        for slot, measure, bucket, count in rows[1:]:
            point = points.get(slot)
            if point is None:
                continue  # counted by a transaction that began later than this question
            if measure == "start":
                point.starts.counts[bucket] += count
            else:
                setattr(point, measure, count)
        return [(slot * step, point) for slot, point in points.items()]

    async def backlog(self) -> list[Backlog]:
        """What is live, by queue and type. Costs as much as there is."""
        with translated():
            async with self._store.pool.connection() as connection, connection.cursor(row_factory=class_row(Backlog)) as cursor:
                return await (await cursor.execute(sql("list_backlog"))).fetchall()

    async def outcomes(self) -> list[Outcome]:
        """What is finished, within retention."""
        with translated():
            async with self._store.pool.connection() as connection, connection.cursor(row_factory=class_row(Outcome)) as cursor:
                return await (await cursor.execute(sql("list_outcomes"))).fetchall()

    async def gauges(self) -> list[Gauge]:
        """Workers, pauses, and how the database is. Does not count tasks."""
        with translated():
            async with self._store.pool.connection() as connection:
                return [Gauge(*row) for row in await (await connection.execute(sql("list_gauges"))).fetchall()]

    async def failures(self, window: float, *, task_type: str | None = None) -> list[Failures]:
        """The most frequent errors of tasks that FAILED in the last ``window`` seconds and are so still; whole hours."""
        parameters = {"window": window, "task_type": task_type, "limit": MOST_FAILURES}
        with translated():
            async with self._store.pool.connection() as connection, connection.cursor(row_factory=class_row(Failures)) as cursor:
                return await (await cursor.execute(sql("list_failures"), parameters, prepare=False)).fetchall()
