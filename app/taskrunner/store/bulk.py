"""Changes of many tasks by filter: written down at once, done batch by batch by whichever process comes first."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg import errors
from psycopg.rows import class_row, dict_row

from taskrunner.domain.task import Lane, TaskFilter
from taskrunner.store import leaves
from taskrunner.store.pool import Connection, translated
from taskrunner.store.queries import sql
from taskrunner.store.tasks import Store

MOST = 500  # tasks in a batch
WINDOW = 5_000  # tasks that a batch looks at
PASSES = 3  # rows that are locked each time are given up

AGAIN = (errors.UniqueViolation, errors.LockNotAvailable, errors.QueryCanceled, errors.DeadlockDetected, errors.SerializationFailure)


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkOperation:
    """How far it is: ``matched`` = ``done`` + ``failed``, those that could not be changed (so far)."""

    id: UUID
    verb: str
    status: str
    matched: int
    done: int
    failed: int
    error: str | None
    created_at: datetime
    finished_at: datetime | None


class Bulks:
    """Bulk operations. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def begin(self, verb: str, which: TaskFilter) -> BulkOperation:
        """Write it down; durable when it returns. Those that ended a week ago are forgotten."""
        text = orjson.dumps(
            {
                "statuses": [*which.statuses] or None,
                "task_type": which.task_type,
                "queue": which.queue,
                "tags": [*which.tags] or None,
                "created_after": which.created_after,
                "created_before": which.created_before,
                "error": which.error,
            }
        ).decode()
        with translated(writes=True):
            async with self._store.pool.connection() as connection:
                await connection.execute(sql("forget_bulk"))
                row = await (await connection.execute(sql("begin_bulk"), {"verb": verb, "filter": text})).fetchone()
        assert row is not None  # an insert that returns
        operation = await self.get(row[0])
        assert operation is not None
        return operation

    async def get(self, id: UUID) -> BulkOperation | None:  # noqa: A002 — the column's name
        """The operation and its progress."""
        with translated():
            async with self._store.pool.connection() as connection, connection.cursor(row_factory=class_row(BulkOperation)) as cursor:
                return await (await cursor.execute(sql("get_bulk"), {"id": id})).fetchone()

    async def run_once(self) -> bool:
        """One batch of the oldest operation that nobody works on. False: there is nothing to do for now."""
        with translated(writes=True):
            async with self._store.pool.connection() as connection:
                try:
                    return await self._batch(connection)
                except errors.CheckViolation as error:
                    if error.diag.constraint_name is not None:
                        raise
                    await leaves.make(connection)
                    return True

    async def _batch(self, connection: Connection) -> bool:
        took: dict[str, Any] | None = None
        async with connection.transaction():
            cursor = connection.cursor(row_factory=dict_row)
            taken = await (await cursor.execute(sql("take_bulk"))).fetchone()
            if taken is None:
                return False
            parameters = {"error": None} | taken["filter"]  # one from before there was this filter has none
            parameters |= {"after": taken["after"], "until": taken["until"], "most": MOST, "window": WINDOW}
            try:
                async with connection.transaction():
                    took = await (await cursor.execute(sql(f"bulk_{taken['verb']}"), parameters, prepare=False)).fetchone()
            except AGAIN:
                return False
            except psycopg.DataError as error:
                note = _note(taken, after=None, done=0, failed=taken["failed"]) | {"status": "FAILED", "error": str(error)}
            else:
                assert took is not None  # a select without a FROM
                note = _progress(taken, took)
            await cursor.execute(sql("note_bulk"), note)
        if took is not None:
            self._store.meter.end(took.get("told"))
            self._hint(took)
        return bool(note["pass"] == taken["pass"])

    def _hint(self, took: dict[str, Any]) -> None:
        for lane in took["lanes"] or ():
            self._store.hints.lane(Lane(*lane), took["run_at"], 0.0)
        for session in took["sessions"] or ():
            self._store.hints.cancel(session)


def _progress(taken: dict[str, Any], took: dict[str, Any]) -> dict[str, Any]:
    """Where the operation stands after a batch. At the end of a pass that had to leave rows, there is another one."""
    failed = taken["failed"] + took["found"] - took["done"]
    note = _note(taken, after=took["after"], done=took["done"], failed=failed)
    if took["after"] is not None:
        return note
    if failed and taken["pass"] < PASSES:
        return note | {"pass": taken["pass"] + 1, "failed": 0}
    return note | {"status": "DONE"}


def _note(taken: dict[str, Any], *, after: UUID | None, done: int, failed: int) -> dict[str, Any]:
    return {"id": taken["id"], "pass": taken["pass"], "after": after, "done": done, "failed": failed, "status": "RUNNING", "error": None}
