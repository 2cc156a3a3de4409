"""The claim connection: takes due tasks for free seats, and finds out what is due next."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import structlog
from psycopg.rows import namedtuple_row

from taskrunner.domain.lanes import Mark, Pick, Serves, Took
from taskrunner.domain.task import Lane
from taskrunner.store.meter import Meter
from taskrunner.store.pool import Connection, Line
from taskrunner.store.queries import sql

# The plans of the batch statements are known: nested loops over the partial indexes, whatever the statistics say. So they are made once,
# and a plan made while the table was small is not a sequential scan when it has grown.
PLANS = "; ".join(
    f"set {name} = {value}"
    for name, value in {
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_bitmapscan": "off",
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
    }.items()
)

log = structlog.get_logger()

UNTRACED = bytes(55)  # the traceparent of a task that has none


class Seat(NamedTuple):
    """Free places of a session, on its stream of that number."""

    session: UUID
    stream: int
    free: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """Tasks of one lane for one session, on its stream of that number, as columns (see ``wire/columns``)."""

    session: UUID
    stream: int
    queue: str
    task_type: str
    n: int
    ids: bytes
    epochs: bytes
    attempts: bytes
    max_attempts: bytes
    timeouts: bytes
    run_ats: bytes
    payloads: list[bytes]
    backoffs: list[bytes]  # JSON, empty where the task has none; no list at all where no task has one
    traceparents: bytes  # zeros where the task has none; empty where no task has one

    def parts(self, most: int) -> Iterator["Claimed"]:
        """The same in pieces with at most ``most`` bytes of payloads each, or one task."""
        if sum(map(len, self.payloads)) <= most:
            yield self
            return
        low = size = 0
        for n, payload in enumerate(self.payloads):
            if n > low and size + len(payload) > most:
                yield _part(self, low, n)
                low, size = n, 0
            size += len(payload)
        yield _part(self, low, self.n)


def _part(one: Claimed, low: int, high: int) -> Claimed:
    def cut(blob: bytes, width: int) -> bytes:
        return blob[low * width : high * width]

    return replace(
        one,
        n=high - low,
        ids=cut(one.ids, 16),
        epochs=cut(one.epochs, 8),
        attempts=cut(one.attempts, 4),
        max_attempts=cut(one.max_attempts, 4),
        timeouts=cut(one.timeouts, 4),
        run_ats=cut(one.run_ats, 8),
        payloads=one.payloads[low:high],
        backoffs=one.backoffs[low:high],
        traceparents=cut(one.traceparents, len(UNTRACED)),
    )


class Claims:
    """What the dispatcher asks, on a connection that it keeps for life. ``meter`` counts what is claimed."""

    def __init__(self, line: Line, meter: Meter) -> None:
        self._line = line
        self._meter = meter

    async def claim(self, picks: Sequence[Pick], seats: Sequence[Seat], *, ahead: float = 0.0) -> tuple[list[Claimed], dict[Lane, Took]]:
        """Take tasks of the lanes of ``picks`` that are due, or will be within ``ahead`` seconds, as many as there are seats at most.
        Durable when it returns.

        Raises Unavailable or OutcomeUnknown; what was taken nevertheless is found by ``Sessions.take_back``, since no worker names it.
        """
        parameters = {
            "sessions": [seat.session for seat in seats],
            "streams": [seat.stream for seat in seats],
            "free": [seat.free for seat in seats],
            **_lanes([pick.lane for pick in picks]),
            "from_ats": [pick.mark.run_at for pick in picks],
            "from_ids": [pick.mark.id for pick in picks],
            "limits": [pick.limit for pick in picks],
            "max_attempts": [pick.max_attempts for pick in picks],
            "timeouts": [pick.timeout for pick in picks],
            "ahead": ahead,
        }
        with self._meter.claims.timed():
            rows = await self._line.run(lambda connection: _fetch(connection, "claim_tasks", parameters), writes=True)
        if rows:
            self._meter.claims.tasks.observe(sum(r.n for r in rows))
        streams = {seat.session: seat.stream for seat in seats}
        claimed: list[Claimed] = []
        took: dict[Lane, Took] = {}
        for r in rows:
            lane = picks[r.lane - 1].lane
            claimed.append(_claimed(r, streams, lane.queue, lane.task_type, r.n))
            self._meter.claim(lane.queue, lane.task_type, r.claimed_at, r.run_ats, r.ids)
            before = took.get(lane)
            size = sum(map(len, r.payloads)) + (before.size if before else 0)
            took[lane] = Took(r.n + (before.n if before else 0), size, Mark(r.mark_at, r.mark_id))
        return claimed, took

    async def claim_suspects(
        self, serves: Serves, seats: Sequence[Seat], *, alone: bool = False, closed: Collection[str] = ()
    ) -> list[Claimed]:
        """Tasks that lost a worker, each by itself, as many as the sessions may hold beside those that they have. None from queues that
        are ``closed``. ``alone``: those that lost more than one.
        """
        parameters = {
            "sessions": [seat.session for seat in seats],
            "streams": [seat.stream for seat in seats],
            "free": [seat.free for seat in seats],
            "alone": alone,
            "task_types": [name for name, _, _ in serves.defaults],
            "queues": None if serves.queues is None else [*serves.queues],
            "closed": [*closed],
        }
        rows = await self._line.run(lambda connection: _fetch(connection, "claim_suspects", parameters), writes=True)
        streams = {seat.session: seat.stream for seat in seats}
        for r in rows:
            self._meter.claim(r.queue, r.task_type, r.claimed_at, r.run_ats, r.ids)
        return [_claimed(r, streams, r.queue, r.task_type, 1) for r in rows]

    async def peek(self, lanes: Sequence[tuple[Lane, Mark]]) -> list[tuple[Lane, float]]:
        """Seconds until the next task behind each mark is due; lanes without one are left out."""
        return await _peek(self._line, lanes)

    async def clock(self) -> datetime:
        """The database's time, after all that was asked before."""
        ((now,),) = await self._line.run(lambda connection: _fetch(connection, "clock", {}))
        assert isinstance(now, datetime)
        return now

    async def close(self) -> None:
        """Give the connection back."""
        await self._line.close()


class Looks:
    """What the lookout asks, beside the claims and never in their way: it may have to walk over dead rows."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def find(self) -> list[tuple[Lane, datetime, float]]:
        """All lanes with a claimable task: the time of its first one, and the seconds until then."""
        rows = await self._line.run(lambda connection: _fetch(connection, "find_lanes", {}))
        return [(Lane(r.queue, r.task_type, r.priority), r.run_at, r.due_in) for r in rows]

    async def find_suspects(self) -> list[tuple[str, float]]:
        """Types with suspects, and the seconds until the first is due."""
        rows = await self._line.run(lambda connection: _fetch(connection, "find_suspects", {}))
        return [(r.task_type, r.due_in) for r in rows]

    async def peek(self, lanes: Sequence[tuple[Lane, Mark]]) -> list[tuple[Lane, float]]:
        """As ``Claims.peek``."""
        return await _peek(self._line, lanes)

    async def sweep(self, stretches: Sequence[tuple[Lane, datetime, Mark]]) -> list[tuple[Lane, datetime]]:
        """The first task within each stretch, as far as there is one."""
        parameters = {
            **_lanes([lane for lane, _, _ in stretches]),
            "low_ats": [low for _, low, _ in stretches],
            "high_ats": [high.run_at for _, _, high in stretches],
            "high_ids": [high.id for _, _, high in stretches],
        }
        rows = await self._line.run(lambda connection: _fetch(connection, "sweep_lanes", parameters))
        return [(stretches[r.lane - 1][0], r.run_at) for r in rows]

    async def close(self) -> None:
        """Give the connection back."""
        await self._line.close()


async def _peek(line: Line, lanes: Sequence[tuple[Lane, Mark]]) -> list[tuple[Lane, float]]:
    parameters = {
        **_lanes([lane for lane, _ in lanes]),
        "from_ats": [mark.run_at for _, mark in lanes],
        "from_ids": [mark.id for _, mark in lanes],
    }
    rows = await line.run(lambda connection: _fetch(connection, "peek_lanes", parameters))
    return [(lanes[r.lane - 1][0], r.due_in) for r in rows]


def _claimed(r: Any, streams: dict[UUID, int], queue: str, task_type: str, n: int) -> Claimed:
    return Claimed(
        r.session,
        streams[r.session],
        queue,
        task_type,
        n,
        r.ids,
        r.epochs,
        r.attempts,
        r.max_attempts,
        r.timeouts,
        r.run_ats,
        r.payloads,
        _backoffs(r.ids, r.backoffs),
        _traceparents(r.ids, r.traces),
    )


def _backoffs(ids: bytes, found: str | None) -> list[bytes]:
    """The column of backoffs, from those that there are by id."""
    if found is None:
        return []
    known = {UUID(id_).bytes: _readable(id_, backoff) for id_, backoff in orjson.loads(found).items()}
    return [known.get(id_, b"") for id_ in (ids[at : at + 16] for at in range(0, len(ids), 16))]


def _readable(id_: str, backoff: str) -> bytes:
    """The backoff, or nothing where it has a number that no double holds, as only SQL can write it: a row must not end the loop."""
    try:
        return orjson.dumps(orjson.loads(backoff))
    except orjson.JSONDecodeError as error:
        log.warning("the backoff of a task cannot be read, and counts as none", task_id=id_, error=str(error))
        return b""


def _traceparents(ids: bytes, found: bytes | None) -> bytes:
    """The column of traceparents, from those that there are, each behind its id."""
    if found is None:
        return b""
    known = {found[at : at + 16]: found[at + 16 : at + 71] for at in range(0, len(found), 71)}
    return b"".join(known.get(ids[at : at + 16], UNTRACED) for at in range(0, len(ids), 16))


def _lanes(lanes: Sequence[Lane]) -> dict[str, Any]:
    return {
        "queues": [lane.queue for lane in lanes],
        "task_types": [lane.task_type for lane in lanes],
        "priorities": [lane.priority for lane in lanes],
    }


async def _fetch(connection: Connection, name: str, parameters: dict[str, Any]) -> list[Any]:
    async with connection.cursor(binary=True, row_factory=namedtuple_row) as cursor:
        await cursor.execute(sql(name), parameters)
        return await cursor.fetchall()
