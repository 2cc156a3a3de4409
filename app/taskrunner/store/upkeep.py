"""What keeps the tables small. Every pass is short, may be repeated, and may run in several schedulers at once."""

from datetime import timedelta

from psycopg_pool import AsyncConnectionPool

from taskrunner.store import leaves
from taskrunner.store.meter import Meter
from taskrunner.store.pool import Connection, translated
from taskrunner.store.queries import sql

BATCH = 1_000
KEPT = 86_400.0  # seconds that an idempotency key counts


class Upkeep:
    """Passes over the tables. Each raises Unavailable while the database is away or busy."""

    def __init__(self, pool: AsyncConnectionPool[Connection], meter: Meter) -> None:
        self._pool = pool
        self._meter = meter

    async def make_leaves(self) -> None:
        """Make the day leaves of the week to come."""
        with translated():
            async with self._pool.connection() as connection:
                await leaves.make(connection)

    async def drop_leaves(self, *, retention: float) -> list[str]:
        """Drop the days that ended more than ``retention`` seconds ago; the names of those dropped."""
        with translated():
            async with self._pool.connection() as connection:
                return await leaves.drop(connection, retention=retention)

    async def forget_counts(self, *, retention: float) -> None:
        """Delete the counts of more than ``retention`` seconds ago."""
        with translated():
            async with self._pool.connection() as connection:
                for statement in ("forget_tally", "forget_minutes"):
                    await connection.execute(sql(statement), {"age": timedelta(seconds=retention)})

    async def sum_tally(self) -> None:
        """Sum up the counts of minutes that are over, and the failures of this hour."""
        with translated():
            async with self._pool.connection() as connection:
                for statement in ("sum_tally", "sum_minutes", "sum_failures"):
                    await connection.execute(sql(statement))

    async def fold(self) -> None:
        """Keep the counts of days that are over by the hour."""
        with translated():
            async with self._pool.connection() as connection:
                for statement in ("fold_tally", "fold_minutes"):
                    while (await connection.execute(sql(statement))).rowcount:
                        pass

    async def expire(self) -> int:
        """Fail waiting tasks whose ``expires_at`` has passed, a batch of them; how many."""
        with translated():
            async with self._pool.connection() as connection:
                rows = await leaves.with_leaves(connection, sql("expire_tasks"), {"limit": BATCH})
        self._meter.end(rows[0][1])
        return int(rows[0][0])

    async def forget_keys(self) -> int:
        """Delete a batch of idempotency keys that are a day old; how many."""
        with translated():
            async with self._pool.connection() as connection:
                return (await connection.execute(sql("forget_keys"), {"age": KEPT, "limit": BATCH})).rowcount

    async def forget_sessions(self) -> None:
        """Delete sessions that have been dead for an hour and hold nothing."""
        with translated():
            async with self._pool.connection() as connection:
                await connection.execute(sql("forget_sessions"))
