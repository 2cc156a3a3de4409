"""Tasks that begin their life as claimed: one statement and one commit where there would be two, and nobody has to be told of them."""

import struct
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from psycopg_pool import AsyncConnectionPool

from taskrunner.domain.task import Created, NewTask
from taskrunner.store.claims import UNTRACED, Claimed
from taskrunner.store.creating import BAD_DATA, columns_of, culprit, json_of
from taskrunner.store.meter import Meter
from taskrunner.store.pool import Connection, translated
from taskrunner.store.queries import sql

FIRST_EPOCH, FIRST_ATTEMPT = struct.pack("!q", 1), struct.pack("!i", 1)


class Place(NamedTuple):
    """For one task: a free place of a session, on its stream of that number, and what holds there where the task says nothing itself."""

    session: UUID
    stream: int
    max_attempts: int
    timeout: float


class Inserted(NamedTuple):
    """What became of tasks, in their order. ``waiting`` are the numbers of those that nobody has claimed: their session was over."""

    created: list[Created]
    claimed: list[Claimed]
    waiting: list[int]


class DirectCreates:
    """What the direct way writes. ``meter`` counts it as created and as claimed."""

    def __init__(self, pool: AsyncConnectionPool[Connection], meter: Meter) -> None:
        self._pool = pool
        self._meter = meter

    async def insert(self, tasks: Sequence[NewTask], places: Sequence[Place]) -> Inserted:
        """Write tasks without a unique key that are due now, all or none, each claimed for its place. Durable when it returns.

        Raises BadTask for the first one that the database refuses, Unavailable or OutcomeUnknown; what was claimed nevertheless is found by
        ``Sessions.take_back``, since no worker names it.
        """
        held = [_own(task, place) for task, place in zip(tasks, places, strict=True)]
        parameters = columns_of(tasks) | {
            "sessions": [place.session for place in held],
            "streams": [place.stream for place in held],
            "max_attempts": [place.max_attempts for place in held],
            "timeouts": [place.timeout for place in held],
        }
        with translated(writes=True), self._meter.creates.timed(len(tasks)):
            async with self._pool.connection() as connection:
                try:
                    rows = await (await connection.execute(sql("create_claimed"), parameters, binary=True)).fetchall()
                except BAD_DATA as error:
                    raise await culprit(connection, tasks, error, "create_tasks") from error
        groups: dict[tuple[UUID, str, str], list[_New]] = {}
        waiting = []
        for n, (id_, _, is_claimed, run_at, payload) in enumerate(rows):
            if is_claimed:
                new = _New(tasks[n], held[n], id_.bytes, run_at, payload)
                groups.setdefault((new.place.session, new.task.queue, new.task.task_type), []).append(new)
            else:
                waiting.append(n)
        claimed = [_claimed(group) for group in groups.values()]
        for one in claimed:
            self._meter.create(one.queue, one.task_type, one.n)
            self._meter.claim(one.queue, one.task_type, one.run_ats[:8], one.run_ats, one.ids)
        return Inserted([Created(row[0], row[1], row[1]) for row in rows], claimed, waiting)


class _New(NamedTuple):
    task: NewTask
    place: Place
    id: bytes
    run_at: bytes  # as PostgreSQL sends it
    payload: bytes


def _own(task: NewTask, place: Place) -> Place:
    """The place, with the task's own values where it has some."""
    return place._replace(max_attempts=task.max_attempts or place.max_attempts, timeout=task.timeout or place.timeout)


def _claimed(group: Sequence[_New]) -> Claimed:
    """Tasks of one type and queue at places of one session."""
    n, task, place = len(group), group[0].task, group[0].place
    backoffs = [json_of(new.task.backoff).encode() if new.task.backoff else b"" for new in group]
    traces = [(new.task.traceparent or "").encode() for new in group]
    return Claimed(
        place.session,
        place.stream,
        task.queue,
        task.task_type,
        n,
        ids=b"".join(new.id for new in group),
        epochs=FIRST_EPOCH * n,
        attempts=FIRST_ATTEMPT * n,
        max_attempts=struct.pack(f"!{n}i", *[new.place.max_attempts for new in group]),
        timeouts=struct.pack(f"!{n}f", *[new.place.timeout for new in group]),
        run_ats=b"".join(new.run_at for new in group),
        payloads=[new.payload for new in group],
        backoffs=backoffs if any(backoffs) else [],
        traceparents=b"".join(trace if len(trace) == len(UNTRACED) else UNTRACED for trace in traces) if any(traces) else b"",
    )
