"""The settle connection: writes how attempts ended, in batches. Each row is fenced by its epoch, so every batch may be sent again."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import errors

from taskrunner.domain.task import Back, Lane
from taskrunner.store import leaves
from taskrunner.store.columns import Floats, Ints, Longs, Uuids
from taskrunner.store.meter import Meter
from taskrunner.store.pool import Connection, Line
from taskrunner.store.queries import sql

BAD_DATA = (psycopg.DataError, psycopg.IntegrityError, errors.ProgramLimitExceeded, errors.StatementTooComplex)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pairs of (id, epoch) that ended the same way, as columns. A column that is not there is None."""

    ids: bytes
    epochs: bytes
    sessions: bytes  # who says so: one for all rows, or one for each
    results: Sequence[str | None] | None = None
    errors: Sequence[str | None] | None = None
    tracebacks: Sequence[str | None] | None = None
    delays: Sequence[float | None] | None = None
    run_ms: bytes | None = None

    def __len__(self) -> int:
        return len(self.ids) // 16

    def part(self, numbers: Sequence[int]) -> "Batch":
        """The rows of these numbers."""

        def cut(blob: bytes, width: int) -> bytes:
            return b"".join(blob[n * width : (n + 1) * width] for n in numbers)

        def take(column: Sequence[Any] | None) -> list[Any] | None:
            return None if column is None else [column[n] for n in numbers]

        return Batch(
            ids=cut(self.ids, 16),
            epochs=cut(self.epochs, 8),
            sessions=self.sessions if len(self.sessions) == 16 else cut(self.sessions, 16),
            results=take(self.results),
            errors=take(self.errors),
            tracebacks=take(self.tracebacks),
            delays=take(self.delays),
            run_ms=None if self.run_ms is None else cut(self.run_ms, 4),
        )

    def parameters(self) -> dict[str, Any]:
        """As the statements take it."""
        return {
            "ids": Uuids(self.ids),
            "epochs": Longs(self.epochs),
            "sessions": Uuids(self.sessions),
            "results": self.results,
            "errors": self.errors,
            "tracebacks": self.tracebacks,
            "delays": self.delays,
            "run_ms": None if self.run_ms is None else Ints(self.run_ms),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What handlers say of themselves, as columns; ``sessions`` is one for all rows, or one for each."""

    ids: bytes
    epochs: bytes
    sessions: bytes
    fractions: bytes
    messages: Sequence[str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to end: its statement, and the statuses by which one sees that it happened before."""

    statement: str
    settled: tuple[str, ...]


COMPLETED = Kind("complete_tasks", ("COMPLETED",))
ERROR = Kind("fail_tasks", ("PENDING", "FAILED", "CANCELLED"))
GIVEN_BACK = Kind("give_back_tasks", ("PENDING", "CANCELLED"))
CANCELLED = Kind("cancel_tasks", ("CANCELLED",))


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a batch: the pairs that are stale, the numbers of rows that the database refused, lanes that got tasks back, and the
    ids of rows that a stranger has locked, whose outcomes are not written.
    """

    stale_ids: bytes
    stale_epochs: bytes
    refused: dict[int, str]
    back: list[Back]
    locked: frozenset[bytes] = frozenset()


class Settling:
    """What the settler asks, on a connection that it keeps for life."""

    def __init__(self, line: Line, meter: Meter) -> None:
        self._line = line
        self._meter = meter

    async def start(self, ids: bytes, epochs: bytes, sessions: bytes) -> frozenset[bytes]:
        """Handlers of these are running, say ``sessions``: one for all of them, or one for each. The ids of rows that a stranger has
        locked, of which that is not written.
        """
        parameters = {"ids": Uuids(ids), "epochs": Longs(epochs), "sessions": Uuids(sessions)}
        return await self._line.run(lambda connection: _ids(connection, "start_tasks", parameters), writes=True)

    async def progress(self, said: Said) -> None:
        """What handlers say of themselves; of one that said more the last."""
        parameters = {
            "ids": Uuids(said.ids),
            "epochs": Longs(said.epochs),
            "sessions": Uuids(said.sessions),
            "fractions": Floats(said.fractions),
            "messages": [*said.messages],
        }
        await self._line.run(lambda c: c.execute(sql("note_progress"), parameters, binary=True), writes=True)

    async def settle(self, kind: Kind, batch: Batch, *, wait: bool = True) -> Settled:
        """Write the batch; durable when it returns. Safe to repeat: what ended so before counts as settled. A row that a stranger has
        locked is waited for, for a second, if we may ``wait``; then the others are settled without it.

        Raises Unavailable or OutcomeUnknown; then say it again.
        """
        with self._meter.settles[kind.statement].timed(len(batch)):
            settled = await self._line.run(lambda connection: _settle(connection, kind, batch, self._meter, wait=wait), writes=True)
        self._meter.stale += len(settled.stale_ids) // 16
        self._meter.refused += len(settled.refused)
        return settled

    async def close(self) -> None:
        """Give the connection back."""
        await self._line.close()


async def _settle(connection: Connection, kind: Kind, batch: Batch, meter: Meter, *, wait: bool) -> Settled:
    try:
        try:
            if wait:
                return await _write(connection, kind, batch, meter)
        except errors.LockNotAvailable:
            wait = False
        return await _around_locks(connection, kind, batch, meter)
    except BAD_DATA as error:
        return await _bisected(batch, error, lambda part: _settle(connection, kind, part, meter, wait=wait))


async def _write(connection: Connection, kind: Kind, batch: Batch, meter: Meter) -> Settled:
    rows = await leaves.with_leaves(connection, sql(kind.statement), batch.parameters())
    meter.end(rows[0][-1])
    back = [Back(Lane(*row[1:4]), row[4], row[5]) for row in rows if row[1] is not None]
    stale_ids = stale_epochs = b""
    if rows[0][0] < len(batch):
        parameters = {"ids": Uuids(batch.ids), "epochs": Longs(batch.epochs), "statuses": [*kind.settled]}
        row = await (await connection.execute(sql("stale_tasks"), parameters, binary=True)).fetchone()
        assert row is not None  # an aggregate
        stale_ids, stale_epochs = row
    return Settled(stale_ids, stale_epochs, {}, back)


async def _around_locks(connection: Connection, kind: Kind, batch: Batch, meter: Meter) -> Settled:
    """A stranger's transaction holds a row: settle the others, and name it.

    A missing leaf is made before: the statement that finds none would take the locks with it.
    """
    await leaves.make(connection)
    async with connection.transaction():
        locked = await _ids(connection, "locked_tasks", {"ids": Uuids(batch.ids), "epochs": Longs(batch.epochs)})
        numbers = [n for n in range(len(batch)) if batch.ids[n * 16 : n * 16 + 16] not in locked]
        settled = await _write(connection, kind, batch.part(numbers), meter) if numbers else Settled(b"", b"", {}, [])
    return replace(settled, locked=locked)


async def _ids(connection: Connection, name: str, parameters: dict[str, Any]) -> frozenset[bytes]:
    cursor = await connection.execute(sql(name), parameters, binary=True)
    return frozenset([row[0].bytes for row in await cursor.fetchall()])


async def _bisected(batch: Batch, error: psycopg.Error, settle: Callable[[Batch], Awaitable[Settled]]) -> Settled:
    """The database refused the batch for a row of it: settle the others, and name that row."""
    if len(batch) == 1:
        return Settled(b"", b"", {0: (error.diag.message_primary or str(error)).split("\n", 1)[0]}, [])
    half = len(batch) // 2
    low = await settle(batch.part(range(half)))
    high = await settle(batch.part(range(half, len(batch))))
    refused = low.refused | {half + number: reason for number, reason in high.refused.items()}
    stale = low.stale_ids + high.stale_ids, low.stale_epochs + high.stale_epochs
    return Settled(*stale, refused, low.back + high.back, low.locked | high.locked)
