"""What happened, read in order: tasks by the time when they finished, and a sample of those that live."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from psycopg import errors
from psycopg.rows import class_row

from taskrunner.domain.lifecycle import Status
from taskrunner.store.pool import Connection, Line
from taskrunner.store.queries import sql

# The days' BRIN indexes are always the way: what is read is what happened last.
SETUP = "set enable_seqscan = off; set plan_cache_mode = force_custom_plan; set lock_timeout = '100ms'"


class Place(NamedTuple):
    """A place in the order of finished tasks."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """A task as it is in an event: without what may be large."""

    id: UUID
    task_type: str
    queue: str
    status: Status
    tags: list[str]
    attempt: int
    error: str | None
    progress: float | None
    progress_message: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class Events:
    """Questions of the one poller of a process, on a connection that it keeps while anybody listens."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def horizon(self) -> datetime:
        """The time before which all that finished can be seen. Raises Unavailable while the database is away."""
        return await self._line.run(_horizon)

    async def finished(self, since: Place, until: datetime, *, limit: int) -> list[Happened]:
        """What finished after ``since`` and before ``until``, in order."""
        return await self._line.run(lambda connection: _finished(connection, since, until, limit))

    async def summarize(self, since: datetime) -> None:
        """Let the indexes of the days since then know their newest pages, unless a vacuum is at it. To be called every few seconds."""
        await self._line.run(lambda connection: _summarize(connection, since))

    async def live(self, newer_than: UUID, *, limit: int) -> list[Happened]:
        """Up to ``limit`` held tasks, and as many of the newest that wait."""
        return await self._line.run(lambda connection: _live(connection, newer_than, limit))

    async def close(self) -> None:
        """Give the connection back; the next question opens another."""
        await self._line.close(broken=True)  # it was set up for these questions only


async def _horizon(connection: Connection) -> datetime:
    row = await (await connection.execute(sql("events_horizon"))).fetchone()
    assert row is not None  # an aggregate
    horizon: datetime = row[0]
    return horizon


async def _finished(connection: Connection, since: Place, until: datetime, limit: int) -> list[Happened]:
    parameters = {"at": since.at, "id": since.id, "until": until, "limit": limit}
    async with connection.cursor(row_factory=class_row(Happened)) as cursor:
        return await (await cursor.execute(sql("finished_since"), parameters, prepare=False)).fetchall()


async def _summarize(connection: Connection, since: datetime) -> None:
    with suppress(errors.LockNotAvailable, errors.QueryCanceled):
        await connection.execute(sql("summarize_finished"), {"since": since})


async def _live(connection: Connection, newer_than: UUID, limit: int) -> list[Happened]:
    async with connection.cursor(row_factory=class_row(Happened)) as cursor:
        return await (await cursor.execute(sql("sample_live"), {"since": newer_than, "limit": limit})).fetchall()
