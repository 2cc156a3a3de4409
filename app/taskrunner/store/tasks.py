"""The store: what the API asks of the database, one method a statement."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from taskrunner.domain.errors import BadTask, Conflict
from taskrunner.domain.lifecycle import FINISHED
from taskrunner.domain.task import Count, Created, FailedAttempt, Lane, NewTask, Task, TaskFilter
from taskrunner.settings import Settings
from taskrunner.store import leaves
from taskrunner.store.migrate import newest_version
from taskrunner.store.notify import Hints
from taskrunner.store.pool import Connection, Line, open_pool, translated
from taskrunner.store.queries import sql

BAD_DATA = (psycopg.DataError, psycopg.IntegrityError, errors.ProgramLimitExceeded, errors.StatementTooComplex)


@asynccontextmanager
async def open_store(dsn: str, settings: Settings) -> AsyncIterator["Store"]:
    """The store of this process, with its pool and its sender of hints. It opens whether or not the database is there yet."""
    async with open_pool(dsn) as pool:
        hint_line = Line(pool)
        store = Store(pool, Hints(hint_line), dsn=dsn, settings=settings)
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(store.hints.run(), name="hints")
                yield store
                sender.cancel()
        finally:
            await hint_line.close()


class Store:
    """Tasks, as the API sees them. Every method raises Unavailable while the database is away."""

    def __init__(self, pool: AsyncConnectionPool[Connection], hints: Hints, *, dsn: str, settings: Settings) -> None:
        self.pool = pool
        self.hints = hints
        self.dsn = dsn
        self.settings = settings
        self._ready = False

    async def ping(self) -> None:
        """Return when the database answers."""
        with translated():
            async with self.pool.connection() as connection:
                await connection.execute("select 1")

    async def ready(self) -> bool:
        """Whether the schema is there, at the version that this process knows or a newer one."""
        if not self._ready:
            with translated():
                async with self.pool.connection() as connection:
                    try:
                        row = await (await connection.execute(sql("schema_version"))).fetchone()
                    except errors.UndefinedTable:
                        return False
            self._ready = row is not None and (row[0] or 0) >= newest_version()
        return self._ready

    async def create(self, tasks: Sequence[NewTask]) -> list[Created]:
        """Write ``tasks`` in one statement and one commit, and hint at them.

        Raises BadTask for the first one that the database refuses (then none is written), OutcomeUnknown when the commit got no answer.
        """
        with translated(writes=True):
            async with self.pool.connection() as connection:
                try:
                    created = await _insert(connection, tasks)
                except BAD_DATA as error:
                    raise await _culprit(connection, tasks, error) from error
        for task, made in zip(tasks, created, strict=True):
            self.hints.lane(Lane(task.queue, task.task_type, task.priority), made.run_at, (made.run_at - made.created_at).total_seconds())
        return created

    async def get(self, id: UUID) -> Task | None:  # noqa: A002 — the column's name
        """The task, wherever it is in its life."""
        with translated():
            async with self.pool.connection() as connection, connection.cursor(row_factory=class_row(Task)) as cursor:
                return await (await cursor.execute(sql("get_task"), {"id": id})).fetchone()

    async def attempts(self, id: UUID) -> list[FailedAttempt]:  # noqa: A002
        """The attempts of a task that did not succeed, oldest first."""
        with translated():
            async with self.pool.connection() as connection, connection.cursor(row_factory=class_row(FailedAttempt)) as cursor:
                return await (await cursor.execute(sql("get_attempts"), {"id": id})).fetchall()

    async def finished(self, ids: Sequence[UUID]) -> set[UUID]:
        """Those of ``ids`` that are finished, or gone."""
        with translated():
            async with self.pool.connection() as connection:
                rows = await (await connection.execute(sql("finished_tasks"), {"ids": [*ids]}, binary=True)).fetchall()
        return {row[0] for row in rows}

    async def counts(self) -> list[Count]:
        """Tasks by status: live ones as they are, finished ones within retention."""
        with translated():
            async with self.pool.connection() as connection, connection.cursor(row_factory=class_row(Count)) as cursor:
                return await (await cursor.execute(sql("count_tasks"))).fetchall()

    async def cancel(self, id: UUID) -> Task | None:  # noqa: A002
        """Cancel a task: at once when PENDING; a held one is marked, and its worker told.

        None: there is none. Raises Conflict when it is finished.
        """
        for _ in range(3):  # it may be claimed or given back between the two statements
            if await self._change("cancel_pending", id) is not None:
                return await self.get(id)
            held = await self._change("request_cancel", id)
            if held is not None:
                self.hints.cancel(held[0])
                return await self.get(id)
            task = await self.get(id)
            if task is None or task.status in FINISHED:
                break
        if task is not None:
            raise Conflict(f"the task is {task.status} already")
        return None

    async def retry(self, id: UUID) -> Task | None:  # noqa: A002
        """Run a finished task again, with a new budget of attempts. None: there is none. Raises Conflict when it is not finished."""
        try:
            lane = await self._change("retry_task", id)
        except errors.UniqueViolation:
            raise Conflict("another live task has this task's unique_key") from None
        return await self._claimable(id, lane, "is not finished: it is {status}")

    async def run_now(self, id: UUID) -> Task | None:  # noqa: A002
        """Make a PENDING task due now. None: there is none. Raises Conflict when it is not PENDING."""
        return await self._claimable(id, await self._change("run_task_now", id), "is not waiting: it is {status}")

    async def _claimable(self, id: UUID, lane: tuple[Any, ...] | None, conflict: str) -> Task | None:  # noqa: A002
        task = await self.get(id)
        if lane is not None:
            self.hints.lane(Lane(*lane[:3]), lane[3], 0.0)
        elif task is not None:
            raise Conflict("the task " + conflict.format(status=task.status))
        return task

    async def _change(self, name: str, id: UUID) -> tuple[Any, ...] | None:  # noqa: A002
        """One move of one task; None when no row was in the state for it."""
        with translated(writes=True):
            async with self.pool.connection() as connection:
                rows = await leaves.with_leaves(connection, sql(name), {"id": id})
        return rows[0] if rows else None

    async def list(self, which: TaskFilter) -> list[Task]:
        """Tasks that fit, newest first."""
        parameters = {
            "limit": which.limit,
            "before": which.before,
            "statuses": [status.value for status in which.statuses] or None,
            "task_type": which.task_type,
            "queue": which.queue,
            "tags": [*which.tags] or None,
            "created_after": which.created_after,
            "created_before": which.created_before,
        }
        with translated():
            async with self.pool.connection() as connection, connection.cursor(row_factory=class_row(Task)) as cursor:
                return await (await cursor.execute(sql("list_tasks"), parameters, prepare=False)).fetchall()


async def _insert(connection: Connection, tasks: Sequence[NewTask]) -> list[Created]:
    rows = await (await connection.execute(sql("create_tasks"), _columns(tasks), binary=True)).fetchall()
    return [Created(*row) for row in rows]


def _columns(tasks: Sequence[NewTask]) -> dict[str, Any]:
    return {
        "task_types": [t.task_type for t in tasks],
        "queues": [t.queue for t in tasks],
        "priorities": [t.priority for t in tasks],
        "payloads": [t.payload for t in tasks],
        "run_ats": _sparse([t.run_at for t in tasks]),
        "delays": _sparse([t.delay for t in tasks]),
        "max_attempts": _sparse([t.max_attempts for t in tasks]),
        "timeouts": _sparse([t.timeout for t in tasks]),
        "tags": _sparse([_array(t.tags) if t.tags else None for t in tasks]),
    }


def _sparse(values: list[Any]) -> list[Any] | None:
    """A column, or nothing where all of it is empty."""
    return values if any(value is not None for value in values) else None


def _array(words: Sequence[str]) -> str:
    """PostgreSQL's text form of an array: arrays of arrays of different lengths are not to be had."""
    return "{" + ",".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words) + "}"


async def _culprit(connection: Connection, tasks: Sequence[NewTask], error: psycopg.Error) -> BadTask:
    """Which task the database refused: halves are tried and rolled back."""
    low, high = 0, len(tasks)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            async with connection.transaction(force_rollback=True):
                await _insert(connection, tasks[low:middle])
        except BAD_DATA as first:
            high, error = middle, first
        else:
            low = middle
    return BadTask(low, (error.diag.message_primary or str(error)).split("\n", 1)[0])
