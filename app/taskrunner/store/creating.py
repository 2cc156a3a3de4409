"""Plain creates: one insert a batch, whatever is in it."""

import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
import psycopg
from psycopg import errors

from taskrunner.domain.errors import BadTask
from taskrunner.domain.retry import Backoff
from taskrunner.domain.task import Created, Lane, NewTask
from taskrunner.store.columns import Shorts, Texts
from taskrunner.store.pool import Connection
from taskrunner.store.queries import sql

BAD_DATA = (psycopg.DataError, psycopg.IntegrityError, errors.ProgramLimitExceeded, errors.StatementTooComplex)


async def insert_plain(connection: Connection, tasks: Sequence[NewTask]) -> list[Created]:
    """Write tasks without a unique key. Raises BadTask for the first one that the database refuses; then none is written."""
    try:
        rows = await (await connection.execute(sql("create_tasks"), columns_of(tasks), binary=True)).fetchall()
    except BAD_DATA as error:
        raise await culprit(connection, tasks, error, "create_tasks") from error
    return [Created(*row) for row in rows]


def by_lane(tasks: Sequence[NewTask], created: Sequence[Created]) -> dict[Lane, tuple[Created, int]]:
    """Where there is something to claim now: the first of each lane, and how many there are."""
    lanes: dict[Lane, tuple[Created, int]] = {}
    for task, made in zip(tasks, created, strict=True):
        if not made.deduplicated or task.on_conflict == "replace":
            lane = Lane(task.queue, task.task_type, task.priority)
            first, n = lanes.get(lane, (made, 0))
            lanes[lane] = (made if made.run_at < first.run_at else first, n + 1)
    return lanes


def columns_of(tasks: Sequence[NewTask]) -> dict[str, Any]:
    """The parameters of the fragment ``asked``."""
    return {
        "task_types": Texts([t.task_type for t in tasks]),
        "queues": Texts([t.queue for t in tasks]),
        "priorities": Shorts(struct.pack(f"!{len(tasks)}h", *[t.priority for t in tasks])),
        "payloads": Texts([t.payload for t in tasks]),
        "run_ats": _sparse([t.run_at for t in tasks]),
        "delays": _sparse([t.delay for t in tasks]),
        "max_attempts": _sparse([t.max_attempts for t in tasks]),
        "timeouts": _sparse([t.timeout for t in tasks]),
        "tags": _sparse([_array(t.tags) if t.tags else None for t in tasks]),
        "unique_keys": _sparse([t.unique_key for t in tasks]),
        "expires_ats": _sparse([t.expires_at for t in tasks]),
        "backoffs": _sparse([json_of(t.backoff) if t.backoff else None for t in tasks]),
        "metadatas": _sparse([t.metadata for t in tasks]),
        "traceparents": _sparse([t.traceparent for t in tasks]),
        "callback_urls": _sparse([t.callback_url for t in tasks]),
    }


def _sparse(values: list[Any]) -> list[Any] | None:
    """A column, or nothing where all of it is empty."""
    return values if any(value is not None for value in values) else None


def json_of(backoff: Backoff) -> str:
    """As the column has it."""
    return orjson.dumps({name: value for name, value in asdict(backoff).items() if value is not None}).decode()


def _array(words: Sequence[str]) -> str:
    """PostgreSQL's text form of an array: arrays of arrays of different lengths are not to be had."""
    return "{" + ",".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words) + "}"


async def culprit(connection: Connection, tasks: Sequence[NewTask], error: psycopg.Error, statement: str) -> BadTask:
    """Which task the database refused: halves are tried with the ``statement`` and rolled back."""
    low, high = 0, len(tasks)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            async with connection.transaction(force_rollback=True):
                await connection.execute(sql(statement), columns_of(tasks[low:middle]))
        except BAD_DATA as first:
            high, error = middle, first
        else:
            low = middle
    return BadTask(low, (error.diag.message_primary or str(error)).split("\n", 1)[0])
