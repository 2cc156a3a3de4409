"""What this process counts as it happens, by queue and type: kept in memory since its start, and written down by the minute."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from psycopg_pool import AsyncConnectionPool

from taskrunner.domain import histogram
from taskrunner.domain.errors import OutcomeUnknown, TaskrunnerError
from taskrunner.store.pool import Connection, translated
from taskrunner.store.queries import sql

log = structlog.get_logger()
PERIOD = 5.0  # seconds that counts stay in memory only
MOST = 1_000  # pairs of queue and type that are counted apart
OTHER = ("other", "other")  # the rest of them
SAMPLES = 8  # tasks of a claim whose delay is looked at; each stands for its share of the claim


@dataclass(slots=True)
class Counts:
    """Of one queue and type, since the process began: tasks created, and how long after their time tasks were claimed (seconds)."""

    created: int = 0
    starts: list[int] = field(default_factory=lambda: [0] * histogram.SIZE)
    waited: float = 0.0


class Minutes:
    """Counts without asking anybody. Somebody must :meth:`run` it; it writes nothing while nothing happens."""

    def __init__(self, pool: AsyncConnectionPool[Connection]) -> None:
        self._pool = pool
        self._pairs: dict[tuple[str, str], Counts] = {}
        self._written: dict[tuple[str, str], Counts] = {}
        self._some = asyncio.Event()

    @property
    def pairs(self) -> Mapping[tuple[str, str], Counts]:
        """All that was counted, by queue and type."""
        return self._pairs

    def created(self, queue: str, task_type: str, n: int) -> None:
        """``n`` tasks were created."""
        self._of(queue, task_type).created += n
        self._some.set()

    def claimed(self, queue: str, task_type: str, n: int, claimed_at: bytes, run_ats: bytes) -> None:
        """``n`` tasks were claimed together; times as PostgreSQL sends them. Only a few of them are looked at."""
        counts = self._of(queue, task_type)
        samples = min(n, SAMPLES)
        now = int.from_bytes(claimed_at, signed=True)
        for sample in range(samples):
            first, after = n * sample // samples, n * (sample + 1) // samples
            at = (first + after) // 2 * 8
            seconds = max(0, now - int.from_bytes(run_ats[at : at + 8], signed=True)) / 1e6
            counts.starts[histogram.bucket(seconds)] += after - first
            counts.waited += seconds * (after - first)
        self._some.set()

    async def run(self) -> None:
        """Write down what there is, every few seconds in which something happened, for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(PERIOD)
            self._some.clear()
            try:
                await self.flush()
            except TaskrunnerError as error:
                log.warning("counts of the last seconds could not be written, and are later", error=str(error))
                self._some.set()

    async def flush(self) -> None:
        """Write down what was counted since the last time. Raises Unavailable while the database is away; then nothing is lost."""
        rows = [*self._news()]
        if not rows:
            return
        names = ("queues", "task_types", "measures", "buckets", "ns")
        parameters: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        now = {pair: Counts(counts.created, [*counts.starts]) for pair, counts in self._pairs.items()}
        try:
            with translated(writes=True):
                async with self._pool.connection() as connection:
                    await connection.execute(sql("add_minutes"), parameters)
        except OutcomeUnknown:
            self._written = now  # twice would be worse than never
            raise
        self._written = now

    def _of(self, queue: str, task_type: str) -> Counts:
        counts = self._pairs.get((queue, task_type))
        if counts is None:
            counts = self._pairs.setdefault((queue, task_type) if len(self._pairs) < MOST else OTHER, Counts())
        return counts

    def _news(self) -> Iterator[tuple[str, str, str, int, int]]:
        for (queue, task_type), counts in self._pairs.items():
            before = self._written.get((queue, task_type)) or Counts()
            if counts.created > before.created:
                yield queue, task_type, "created", 0, counts.created - before.created
            for bucket, (n, had) in enumerate(zip(counts.starts, before.starts, strict=True)):
                if n > had:
                    yield queue, task_type, "start", bucket, n - had
