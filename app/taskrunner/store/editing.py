"""What a person changes of one task: its fields while it waits, and whether it is kept once it is finished."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from taskrunner.domain.errors import BadTask
from taskrunner.domain.task import Lane, Task
from taskrunner.store.pool import translated
from taskrunner.store.queries import sql
from taskrunner.store.tasks import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """All that may be changed of a PENDING task. ``payload`` is JSON text; ``run_at`` or ``delay`` (seconds) is set."""

    payload: str
    priority: int
    run_at: datetime | None
    delay: float | None
    max_attempts: int | None
    timeout: float | None
    tags: list[str]


class Editing:
    """Each call changes the task that was ``seen`` or nothing. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def edit(self, seen: Task, edited: Edited) -> bool:
        """Write the fields; False when the task is not any more as it was seen, or would now expire before it starts. Raises BadTask where
        the database refuses them.
        """
        parameters: dict[str, Any] = {
            "id": seen.id,
            "seen": seen.updated_at,
            "payload": edited.payload,
            "priority": edited.priority,
            "run_at": edited.run_at,
            "delay": edited.delay,
            "max_attempts": edited.max_attempts,
            "timeout": edited.timeout,
            "tags": edited.tags,
        }
        with translated(writes=True):
            async with self._store.pool.connection() as connection:
                try:
                    row = await (await connection.execute(sql("edit_task"), parameters)).fetchone()
                except (psycopg.DataError, psycopg.IntegrityError) as error:
                    raise BadTask(0, (error.diag.message_primary or str(error)).split("\n", 1)[0]) from error
        if row is not None:
            self._store.hints.lane(Lane(*row[:3]), row[3], max(0.0, row[4]))
        return row is not None

    async def delete(self, id: UUID, *, seen: datetime | None) -> bool:  # noqa: A002 — the column's name
        """Delete a finished task and its attempts; False when there is none, or not one that was changed last at ``seen``."""
        with translated(writes=True):
            async with self._store.pool.connection() as connection:
                row = await (await connection.execute(sql("delete_task"), {"id": id, "seen": seen})).fetchone()
        return bool(row and row[0])
