"""The control connection: sessions, their leases, and the tasks of those that are lost."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from taskrunner.domain.task import Back, Lane
from taskrunner.store import leaves
from taskrunner.store.columns import Longs, Uuids
from taskrunner.store.meter import Meter
from taskrunner.store.pool import Connection, Line
from taskrunner.store.queries import sql

POISON_CAP = 3  # crashes, the last one alone: with the next one a task is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """Who a worker says it is. ``ids`` and ``epochs`` are the columns of what it holds; ``stream`` is None for one that does not count."""

    session: UUID
    resumed: bool
    name: str
    version: str
    address: str
    task_types: tuple[str, ...]
    queues: tuple[str, ...]
    slots: int
    ids: bytes
    epochs: bytes
    stream: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The number of the session's new stream, and the columns of what is not the session's any more."""

    stream: int
    lost_ids: bytes
    lost_epochs: bytes


class Renewed(NamedTuple):
    """A renewed lease: when, by the database's clock, and whether the worker is asked to drain."""

    at: datetime
    drain: bool


class Sessions:
    """What the scheduler asks about workers, on a connection that it keeps for life. Raises Unavailable while the database is away."""

    def __init__(self, line: Line, meter: Meter) -> None:
        self._line = line
        self._meter = meter

    async def hello(self, who: Introduction, *, lease: float) -> Accepted | None:
        """Take the session on, on a new stream. None: it is dead, and the worker must begin another; or this Hello is late, and its stream
        over.
        """
        return await self._line.run(lambda connection: _hello(connection, who, lease))

    async def renew(self, lags: Mapping[UUID, float], *, lease: float) -> dict[UUID, Renewed]:
        """Prolong the leases of these sessions, each with the seconds by which its loop is late; those that still live."""
        rows = await self._rows("renew_sessions", {"ids": [*lags], "lags": [*lags.values()], "lease": lease})
        return {row[0]: Renewed(row[1], row[2]) for row in rows}

    async def lose_stream(self, session: UUID, stream: int) -> None:
        """The session's Work stream of that number ended."""
        await self._line.run(lambda connection: connection.execute(sql("lose_stream"), {"id": session, "stream": stream}))

    async def lose_beat(self, session: UUID, beat_at: datetime) -> None:
        """The Beat stream ended that renewed the session then. Nothing, when another one has renewed it since."""
        await self._line.run(lambda connection: connection.execute(sql("lose_beat"), {"id": session, "beat_at": beat_at}))

    async def close_session(self, session: UUID, stream: int) -> None:
        """The worker said Goodbye. While it holds tasks all the same, only its stream is lost."""
        await self._line.run(lambda connection: connection.execute(sql("close_session"), {"id": session, "stream": stream}))

    async def clock(self) -> datetime:
        """The database's."""
        return (await self._rows("clock", {}))[0][0]  # type: ignore[no-any-return]  # a column of any row

    async def end_dead(self, *, longest: float, until: datetime | None = None) -> list[tuple[UUID, str]]:
        """Declare dead the sessions whose lease is over, or whose connections are both broken. ``longest``: no lease is longer.

        Nobody, where it is later than ``until`` by the database's clock.
        """
        rows = await self._rows("end_sessions", {"longest": longest, "until": until})
        self._meter.sessions_lost += len(rows)
        return [(row[0], row[1]) for row in rows]

    async def take_back(self) -> tuple[int, list[Back]]:
        """Take tasks from dead sessions, and those that a live one never heard of: how many, and where they wait now."""
        rows = await self._rows("take_back_tasks", {"cap": POISON_CAP})
        self._meter.taken_back += rows[0][0]
        self._meter.end(rows[0][-1])
        return rows[0][0], [Back(Lane(*row[1:4]), row[4], row[5]) for row in rows if row[1] is not None]

    async def release(self, session: UUID, stream: int, ids: bytes, epochs: bytes) -> tuple[list[Back], int]:
        """Undo claims of which no byte was written to the worker: where they wait now, and how many rows a stranger has locked."""
        parameters = {"session": session, "stream": stream, "ids": Uuids(ids), "epochs": Longs(epochs)}
        rows = await self._rows("release_claims", parameters)
        return [Back(Lane(*row[:3]), row[3], row[4]) for row in rows if row[0] is not None], rows[0][-1]

    async def lags(self, sessions: Collection[UUID]) -> dict[UUID, float]:
        """By how many seconds the loops of these workers are late, as they told whichever scheduler hears their beats."""
        return dict(await self._rows("lags", {"sessions": [*sessions]}))

    async def cancel_requests(self, sessions: Collection[UUID]) -> list[tuple[UUID, bytes, bytes]]:
        """Which tasks of these sessions somebody asked to cancel: (session, ids, epochs)."""
        return [(row[0], row[1], row[2]) for row in await self._rows("cancel_requests", {"sessions": [*sessions]})]

    async def force_cancels(self, *, grace: float) -> int:
        """End what was to be cancelled longer than ``grace`` seconds ago."""
        ((n, told),) = await self._rows("force_cancels", {"grace": grace})
        self._meter.end(told)
        return int(n)

    async def _rows(self, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        return await self._line.run(lambda connection: leaves.with_leaves(connection, sql(name), parameters))

    async def close(self) -> None:
        """Give the connection back."""
        await self._line.close()


async def _hello(connection: Connection, who: Introduction, lease: float) -> Accepted | None:
    opening: dict[str, Any] = {"id": who.session, "stream": who.stream, "lease": lease}
    opening |= {"name": who.name, "version": who.version, "address": who.address}
    opening |= {"task_types": [*who.task_types], "queues": [*who.queues], "slots": who.slots}
    async with connection.transaction():
        row = await (await connection.execute(sql("resume_session" if who.resumed else "open_session"), opening)).fetchone()
        if row is None:
            return None
        if not who.ids:
            return Accepted(row[0], b"", b"")
        restamp = {"id": who.session, "stream": row[0], "ids": Uuids(who.ids), "epochs": Longs(who.epochs)}
        lost = await (await connection.execute(sql("restamp_tasks"), restamp, binary=True)).fetchone()
        assert lost is not None  # an aggregate
        return Accepted(row[0], lost[0], lost[1])
