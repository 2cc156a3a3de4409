"""The classes of the store as a scheduler holds them, a connection of our own to look with, and the words that tests of the store use."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from taskrunner.domain.lanes import BEGINNING, Mark, Pick, Took
from taskrunner.domain.task import Lane, NewTask
from taskrunner.settings import Settings
from taskrunner.store.claims import PLANS, Claimed, Claims, Looks, Seat
from taskrunner.store.pool import Line
from taskrunner.store.sessions import Accepted, Introduction, Sessions
from taskrunner.store.settling import Batch, Settling
from taskrunner.store.tasks import Store, open_store
from taskrunner.store.upkeep import Upkeep
from taskrunner.wire.columns import EPOCH, ID, split

T = Lane("default", "t", 2)


@dataclass(slots=True)
class Held:
    """What a session holds, as pairs."""

    session: UUID
    stream: int
    ids: list[UUID]
    epochs: list[int]

    @property
    def blobs(self) -> tuple[bytes, bytes]:
        return b"".join(id_.bytes for id_ in self.ids), b"".join(epoch.to_bytes(8, "big") for epoch in self.epochs)

    def batch(self, **columns: Any) -> Batch:
        """As a batch of outcomes; one value is repeated for each row."""
        ids, epochs = self.blobs
        n = len(self.ids)
        columns = {"run_ms": bytes(4 * n)} | {
            name: [value] * n if not isinstance(value, list | bytes) else value for name, value in columns.items()
        }
        return Batch(ids=ids, epochs=epochs, sessions=self.session.bytes, **columns)

    def error(self, delay: float | None = 0.0, reason: str = "broken") -> Batch:
        return self.batch(errors=reason, tracebacks=None, delays=delay)

    def done(self, result: str | None = None) -> Batch:
        return self.batch(results=result)

    def back(self, delay: float | None = None) -> Batch:
        return self.batch(delays=delay)


@dataclass(slots=True)
class Desk:
    """One scheduler's view of the database, and ours."""

    store: Store
    db: psycopg.AsyncConnection[dict[str, Any]]
    claims: Claims = field(init=False)
    looks: Looks = field(init=False)
    settling: Settling = field(init=False)
    sessions: Sessions = field(init=False)
    upkeep: Upkeep = field(init=False)

    def __post_init__(self) -> None:
        def line() -> Line:
            return Line(self.store.pool, setup=PLANS)

        meter = self.store.meter
        self.claims, self.looks = Claims(line(), meter), Looks(line())
        self.settling, self.sessions = Settling(line(), meter), Sessions(line(), meter)
        self.upkeep = Upkeep(self.store.pool, meter)

    async def close(self) -> None:
        for room in (self.claims, self.looks, self.settling, self.sessions):
            await room.close()

    async def create(self, n: int = 1, **fields: Any) -> list[UUID]:
        tasks = [NewTask(**{"task_type": "t", "payload": json.dumps({"n": number}), **fields}) for number in range(n)]
        return [made.id for made in await self.store.create(tasks)]

    async def hello(
        self, session: UUID, held: Held | None = None, *, resumed: bool = False, stream: int | None = None, lease: float = 60
    ) -> Accepted | None:
        ids, epochs = held.blobs if held else (b"", b"")
        who = Introduction(
            session=session,
            resumed=resumed,
            name="w",
            version="1.2.3",
            address="",
            task_types=("t",),
            queues=("*",),
            slots=10,
            ids=ids,
            epochs=epochs,
            stream=stream,
        )
        return await self.sessions.hello(who, lease=lease)

    async def worker(self, *, lease: float = 60) -> Seat:
        session = uuid4()
        accepted = await self.hello(session, lease=lease)
        assert accepted is not None
        return Seat(session, accepted.stream, 1)

    async def claim(self, seat: Seat, n: int, *, lane: Lane = T, mark: Mark = BEGINNING, attempts: int = 5) -> Held:
        """Claim up to ``n`` tasks of one lane for one session."""
        claimed, _ = await self.take([seat._replace(free=n)], lane, mark=mark, limit=n, attempts=attempts)
        return pairs(seat, claimed)

    async def take(
        self, seats: Sequence[Seat], *lanes: Lane, mark: Mark = BEGINNING, limit: int = 500, attempts: int = 5
    ) -> tuple[list[Claimed], dict[Lane, Took]]:
        return await self.claims.claim([Pick(lane, mark, limit, attempts, 300.0) for lane in lanes or (T,)], seats)

    async def held(self, n: int = 1, *, started: bool = False, attempts: int = 5, **fields: Any) -> Held:
        """``n`` new tasks, held by a new session."""
        await self.create(n, **fields)
        lane = T._replace(**{name: value for name, value in fields.items() if name in T._fields})
        held = await self.claim(await self.worker(), n, lane=lane, attempts=attempts)
        assert len(held.ids) == n
        if started:
            await self.settling.start(*held.blobs, held.session.bytes)
        return held

    async def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        return await (await self.db.execute(query, parameters)).fetchall()

    async def row(self, id_: UUID) -> dict[str, Any]:
        (row,) = await self.rows("select * from tasks where id = %s", id_)
        return row

    async def statuses(self, ids: Sequence[UUID]) -> list[str]:
        found = {row["id"]: row["status"] for row in await self.rows("select id, status from tasks where id = any(%s)", [*ids])}
        return [found[id_] for id_ in ids]

    async def now(self) -> datetime:
        (row,) = await self.rows("select clock_timestamp() as now")
        now: datetime = row["now"]
        return now


def pairs(seat: Seat, claimed: Sequence[Claimed]) -> Held:
    """What one session got."""
    ids = [UUID(bytes=id_) for one in claimed for id_ in split(one.ids, ID) if one.session == seat.session]
    epochs = [int.from_bytes(epoch, "big") for one in claimed for epoch in split(one.epochs, EPOCH) if one.session == seat.session]
    return Held(seat.session, seat.stream, ids, epochs)


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Desk]:
    """A desk with a pool of its own, as another process has."""
    settings = Settings(_env_file=None)
    async with (
        open_store(dsn, settings) as store,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row) as db,
    ):
        desk = Desk(store, db)
        try:
            yield desk
        finally:
            await desk.close()


async def until_blocked(desk: Desk, n: int = 1) -> None:
    """Return when ``n`` connections of this database wait for a lock."""
    async with asyncio.timeout(15):
        while True:
            await desk.db.execute("select pg_stat_clear_snapshot()")  # within a transaction the first look would be the last
            (row,) = await desk.rows(
                "select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            if row["n"] >= n:
                return
            await asyncio.sleep(0.002)
