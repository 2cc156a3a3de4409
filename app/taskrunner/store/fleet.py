"""What there is, counted: queues, types, worker sessions."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from taskrunner.store.pool import translated
from taskrunner.store.queries import sql
from taskrunner.store.tasks import Store

Scope = Literal["queue", "type"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What waits and runs in a queue, or of a type. The age is that of the oldest task that could run now, in seconds from its time or its
    creation.
    """

    name: str
    ready: int
    scheduled: int
    running: int
    oldest_ready_age: float | None
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSession:
    """A session of a worker: LIVE, DRAINING or DEAD."""

    session: UUID
    name: str
    version: str
    address: str
    status: str
    task_types: list[str]
    queues: list[str]
    slots: int
    in_flight: int
    started_at: datetime
    last_beat_age: float
    lag: float


class Fleet:
    """Questions about everything at once. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def lots(self, scope: Scope) -> list[Lot]:
        """All queues or types that have tasks, had some within retention, are served, or are paused. Counts what is live."""
        with translated():
            async with self._store.pool.connection() as connection, connection.cursor(row_factory=class_row(Lot)) as cursor:
                return await (await cursor.execute(sql("list_queues" if scope == "queue" else "list_types"))).fetchall()

    async def sessions(self, id: UUID | None = None) -> list[WorkerSession]:  # noqa: A002 — the column's name
        """Sessions, newest first; with ``id``, that one. Dead ones are kept for an hour."""
        with translated():
            async with self._store.pool.connection() as connection, connection.cursor(row_factory=class_row(WorkerSession)) as cursor:
                return await (await cursor.execute(sql("list_sessions"), {"id": id})).fetchall()

    async def drain(self, id: UUID) -> bool:  # noqa: A002 — the column's name
        """Ask the worker to drain; its next beat tells it. False when the session does not live."""
        with translated(writes=True):
            async with self._store.pool.connection() as connection:
                return await (await connection.execute(sql("drain_session"), {"id": id})).fetchone() is not None
