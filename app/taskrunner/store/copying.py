"""Many plain creates in one COPY: while the database writes the first of them, the last ones are still being read.

It costs the database less than an insert, and takes rows as they come. What an insert would return is known before: the ids are made
here, by the database's clock.
"""

import asyncio
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from taskrunner.domain.task import Created, NewTask
from taskrunner.store.columns import array_of_texts
from taskrunner.store.creating import json_of
from taskrunner.store.pool import Connection
from taskrunner.store.queries import sql

# The binary format of COPY: https://www.postgresql.org/docs/current/sql-copy.html; each field is its length and its bytes.
HEADER, TRAILER = b"PGCOPY\n\xff\r\n\x00" + bytes(8), b"\xff\xff"
FIELDS = struct.pack("!h", 16)
NULL = b"\xff\xff\xff\xff"
JSONB = b"\x01"  # its version
UNIX, POSTGRES = datetime(1970, 1, 1, tzinfo=UTC), datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

_length = struct.Struct("!i").pack
_short = struct.Struct("!ih").pack
_int = struct.Struct("!ii").pack
_float = struct.Struct("!if").pack
_time = struct.Struct("!iq").pack
_id = struct.Struct("!iQQ").pack


async def copy_plain(connection: Connection, parts: Iterable[Sequence[NewTask]]) -> list[Created]:
    """Write tasks without a unique key, all or none, part by part as ``parts`` has them. What it raises is raised, and none is written."""
    row = await (await connection.execute("select clock_timestamp()", binary=True)).fetchone()
    assert row is not None  # a select without a FROM
    created: list[Created] = []
    async with connection.cursor().copy(sql("copy_tasks")) as copy:
        await copy.write(HEADER)
        for part in parts:
            made = list(_made(part, row[0], len(created)))
            await copy.write(_rows(part, made, row[0]))
            created += made
            await asyncio.sleep(0)  # others' turn
        await copy.write(TRAILER)
    return created


def _made(tasks: Sequence[NewTask], now: datetime, after: int) -> Iterator[Created]:
    """Ids in the order of the tasks, as RFC 9562, 6.2, method 3 has it: each a 4096th of a millisecond behind the one before."""
    tick = (now - UNIX) // MICROSECOND * 4096 // 1000 + after
    random = struct.unpack(f"!{len(tasks)}Q", os.urandom(8 * len(tasks)))
    for n, (bits, task) in enumerate(zip(random, tasks, strict=True), tick):
        high = (n >> 12) << 16 | 7 << 12 | n & 0xFFF
        yield Created(UUID(int=high << 64 | 2 << 62 | bits >> 2), _due(task, now), now)


def _due(task: NewTask, now: datetime) -> datetime:
    if task.run_at is not None:
        return task.run_at
    return now if task.delay is None else now + timedelta(seconds=task.delay)


def _rows(tasks: Sequence[NewTask], made: Sequence[Created], now: datetime) -> bytes:
    names: dict[tuple[str, str, int], bytes] = {}
    at = _moment(now)
    pieces: list[bytes] = []
    for task, one in zip(tasks, made, strict=True):
        name = (task.task_type, task.queue, task.priority)
        named = names.get(name)
        if named is None:
            named = names[name] = _text(task.task_type) + _text(task.queue) + _short(2, task.priority)
        id_ = one.id.int
        due = at if one.run_at is now else _moment(one.run_at)
        pieces += (FIELDS, _id(16, id_ >> 64, id_ & 0xFFFFFFFFFFFFFFFF), named, _json(task.payload), due, at, at, _others(task))
    return b"".join(pieces)


def _others(task: NewTask) -> bytes:
    others = (task.max_attempts, task.timeout, task.expires_at, task.backoff, task.metadata, task.traceparent, task.callback_url)
    if not task.tags and others.count(None) == len(others):
        return ORDINARY
    return b"".join(
        (
            NULL if task.max_attempts is None else _int(4, task.max_attempts),
            NULL if task.timeout is None else _float(4, task.timeout),
            _words(task.tags),
            NULL if task.expires_at is None else _moment(task.expires_at),
            NULL if task.backoff is None else _json(json_of(task.backoff)),
            NULL if task.metadata is None else _json(task.metadata),
            NULL if task.traceparent is None else _text(task.traceparent),
            NULL if task.callback_url is None else _text(task.callback_url),
        )
    )


def _text(text: str) -> bytes:
    entry = text.encode()
    return _length(len(entry)) + entry


def _words(words: Sequence[str]) -> bytes:
    entry = array_of_texts(words)
    return _length(len(entry)) + entry


def _json(text: str) -> bytes:
    entry = text.encode()
    return _length(len(entry) + 1) + JSONB + entry


def _moment(time: datetime) -> bytes:
    return _time(8, (time - POSTGRES) // MICROSECOND)


# What stands behind the times of a task that has nothing but type, queue, priority and payload.
ORDINARY = NULL * 2 + _words(()) + NULL * 5
