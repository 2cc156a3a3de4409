"""What this process counts, written down by the minute: pages draw it for as long as finished tasks are kept."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

import structlog
from psycopg_pool import AsyncConnectionPool

from taskrunner.domain.errors import OutcomeUnknown, TaskrunnerError
from taskrunner.store.meter import Meter, Pair
from taskrunner.store.pool import Connection, translated
from taskrunner.store.queries import sql

log = structlog.get_logger()
PERIOD = 5.0  # seconds that counts stay in memory only
Key: TypeAlias = tuple[Pair, str, int]  # of what, and which bucket of it


class Minutes:
    """Writes down what is new, and nothing while nothing happens. Somebody must :meth:`run` it."""

    def __init__(self, pool: AsyncConnectionPool[Connection], meter: Meter) -> None:
        self._pool = pool
        self._meter = meter
        self._written: Counter[Key] = Counter()

    async def run(self) -> None:
        """Write down what there is, every few seconds, for ever."""
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self.flush()
            except TaskrunnerError as error:
                log.warning("counts of the last seconds could not be written, and will be later", error=str(error))

    async def flush(self) -> None:
        """Write down what was counted since the last time. Raises Unavailable while the database is away; then nothing is lost."""
        now = Counter(dict(self._counts()))
        news = now - self._written
        if not news:
            return
        rows = [(queue, task_type, measure, bucket, n) for ((queue, task_type), measure, bucket), n in news.items()]
        names = ("queues", "task_types", "measures", "buckets", "ns")
        parameters: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        try:
            with translated(writes=True):
                async with self._pool.connection() as connection:
                    await connection.execute(sql("add_minutes"), parameters)
        except OutcomeUnknown:
            self._written = now  # twice would be worse than never
            raise
        self._written = now

    def _counts(self) -> Iterator[tuple[Key, int]]:
        for pair, n in self._meter.created.items():
            yield (pair, "created", 0), n
        for pair, starts in self._meter.starts.items():
            for bucket, n in enumerate(starts.counts):
                if n:
                    yield (pair, "start", bucket), n
