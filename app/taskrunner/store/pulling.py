"""What the pull door asks, with the scheduler's own statements: claims, settling and leases are the same for workers without streams."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid4

import orjson
from psycopg_pool import AsyncConnectionPool

from taskrunner.domain.lanes import Pick, Serves, Took
from taskrunner.domain.retry import Backoff
from taskrunner.domain.task import Back, Lane
from taskrunner.store.claims import PLANS, Claimed, Claims, Looks, Seat
from taskrunner.store.columns import Uuids
from taskrunner.store.meter import Meter
from taskrunner.store.pool import Connection, Line
from taskrunner.store.queries import sql
from taskrunner.store.sessions import Introduction, Sessions
from taskrunner.store.settling import Batch, Kind, Settled, Settling

STREAM = 1  # a session that pulls says Hello once


class Puller(NamedTuple):
    """A worker that pulls, as it introduces itself with each claim."""

    name: str
    task_types: tuple[str, ...]
    queues: tuple[str, ...]
    slots: int


class Found(NamedTuple):
    """Closed queues and types (scope, name, seconds until it opens), lanes with the time of their first task and the seconds until then,
    and types with suspects and the seconds until the first.
    """

    closed: list[tuple[str, str, float]]
    lanes: list[tuple[Lane, datetime, float]]
    suspects: dict[str, float]


class Pulling:
    """One connection for all workers that pull from this process, opened when the first one comes.

    Raises Unavailable while the database is away, OutcomeUnknown where a commit got no answer.
    """

    def __init__(self, pool: AsyncConnectionPool[Connection], meter: Meter, *, lease: float) -> None:
        self._line = Line(pool, setup=PLANS)
        self._lease = lease
        self._claims = Claims(self._line, meter)
        self._looks = Looks(self._line)
        self._sessions = Sessions(self._line, meter)
        self._settling = Settling(self._line, meter)

    async def open(self, who: Puller) -> UUID:
        """Begin a session."""
        session = uuid4()
        hello = Introduction(
            session=session,
            resumed=False,
            name=who.name,
            version="",
            address="",
            task_types=who.task_types,
            queues=who.queues,
            slots=who.slots,
            ids=b"",
            epochs=b"",
        )
        await self._sessions.hello(hello, lease=self._lease)
        return session

    async def renew(self, session: UUID, who: Puller | None = None) -> bool | None:
        """Prolong the session's lease. None: it is dead; else whether somebody asked it to drain."""
        types, queues, slots = (None, None, None) if who is None else ([*who.task_types], [*who.queues], who.slots)
        parameters = {"id": session, "lease": self._lease, "task_types": types, "queues": queues, "slots": slots}

        async def ask(connection: Connection) -> bool | None:
            row = await (await connection.execute(sql("renew_puller"), parameters)).fetchone()
            return None if row is None else bool(row[0])

        return await self._line.run(ask)

    async def keep(self, session: UUID) -> None:
        """Prolong the lease of a session that waits and holds nothing."""
        await self._line.run(lambda connection: connection.execute(sql("keep_puller"), {"id": session, "lease": self._lease}))

    async def look(self) -> Found:
        """What there is to claim, and what may not be claimed."""

        async def gates(connection: Connection) -> list[tuple[str, str, float]]:
            return [(row[0], row[1], row[2]) for row in await (await connection.execute(sql("list_gates"))).fetchall()]

        return Found(await self._line.run(gates), await self._looks.find(), dict(await self._looks.find_suspects()))

    async def claim(self, picks: Sequence[Pick], session: UUID, free: int) -> tuple[list[Claimed], dict[Lane, Took]]:
        """See ``Claims.claim``."""
        return await self._claims.claim(picks, [Seat(session, STREAM, free)])

    async def claim_suspects(self, serves: Serves, session: UUID, free: int, *, closed: Collection[str]) -> list[Claimed]:
        """Tasks that lost a worker, see ``Claims.claim_suspects``."""
        together = await self._claims.claim_suspects(serves, [Seat(session, STREAM, free)], closed=closed)
        if len(together) == free:
            return together
        return together + await self._claims.claim_suspects(serves, [Seat(session, STREAM, 1)], alone=True, closed=closed)

    async def release(self, one: Claimed) -> list[Back]:
        """Undo a claim whose answer was not sent. What a stranger has locked is undone when no beat names it for a lease."""
        back, _ = await self._sessions.release(one.session, one.stream, one.ids, one.epochs)
        return back

    async def release_unheard(self, session: UUID) -> list[Back]:
        """Undo claims of more than a lease ago that no beat has named."""

        async def ask(connection: Connection) -> list[Back]:
            cursor = await connection.execute(sql("release_unheard"), {"session": session, "lease": self._lease})
            return [Back(Lane(*row[:3]), row[3], row[4]) for row in await cursor.fetchall()]

        return await self._line.run(ask, writes=True)

    async def started(self, session: UUID, ids: bytes, epochs: bytes) -> None:
        """A beat of the session has named these. The next one names what a stranger has locked."""
        await self._settling.start(ids, epochs, session.bytes)

    async def cancels(self, session: UUID) -> tuple[bytes, bytes]:
        """Ids and epochs of the session's tasks that somebody asked to cancel."""
        for _, ids, epochs in await self._sessions.cancel_requests([session]):
            return ids, epochs
        return b"", b""

    async def attempts(self, ids: bytes) -> dict[UUID, tuple[int, Backoff]]:
        """Which attempt each of these tasks is at, as far as it is held, and how it wants to be retried."""

        async def ask(connection: Connection) -> dict[UUID, tuple[int, Backoff]]:
            cursor = await connection.execute(sql("held_attempts"), {"ids": Uuids(ids)}, binary=True)
            return {row[0]: (row[1], _wish(row[2])) for row in await cursor.fetchall()}

        return await self._line.run(ask)

    async def settle(self, kind: Kind, batch: Batch) -> Settled:
        """See ``Settling.settle``."""
        return await self._settling.settle(kind, batch)

    async def close(self) -> None:
        """Give the connection back."""
        await self._line.close()


def _wish(backoff: str | None) -> Backoff:
    """What the task says of its retries; what cannot be read is not there (see ``store/claims``)."""
    try:
        return Backoff(**orjson.loads(backoff or "{}"))
    except orjson.JSONDecodeError:
        return Backoff()
