"""The store as a dictionary: what every task must look like after each step, built on the state machine of the domain."""

from dataclasses import dataclass, field
from uuid import UUID

from taskrunner.domain.lifecycle import FINISHED, HELD, MOVES, Status

P, Q, R, C, F, X = Status
CAP = 3


@dataclass(slots=True)
class Row:
    """A task. ``held`` is (session, stream)."""

    status: Status = P
    attempt: int = 0
    epoch: int = 0
    crashes: int = 0
    max_attempts: int = 5
    held: tuple[UUID, int] | None = None
    cancelled: bool = False

    def move(self, to: Status) -> None:
        assert to in MOVES[self.status], f"{self.status} -> {to}"
        self.status = to
        if to not in HELD:
            self.held = None

    def facts(self) -> tuple[object, ...]:
        session, stream = self.held or (None, None)
        return (self.status.value, self.attempt, self.epoch, self.crashes, session, stream)


@dataclass(slots=True)
class Model:
    """All tasks, and the sessions that live: id → stream."""

    rows: dict[UUID, Row] = field(default_factory=dict)
    streams: dict[UUID, int] = field(default_factory=dict)
    dead: set[UUID] = field(default_factory=set)
    rows_of_attempts: int = 0
    claims: dict[tuple[UUID, int], UUID] = field(default_factory=dict)  # who claimed what, ever

    def claimed(self, id_: UUID, epoch: int, session: UUID) -> None:
        row = self.rows[id_]
        row.move(Q)
        row.epoch += 1
        row.attempt += 1
        row.held = (session, self.streams[session])
        self.claims[id_, epoch] = session
        assert epoch == row.epoch

    def claimable(self) -> set[UUID]:
        return {id_ for id_, row in self.rows.items() if row.status is P and row.crashes == 0}

    def suspects(self, session: UUID, *, alone: bool) -> tuple[set[UUID], int]:
        """Who lost a worker (``alone``: more than one), and how many of them the session may get now."""
        can = {id_ for id_, row in self.rows.items() if row.status is P and (row.crashes > 1 if alone else row.crashes == 1)}
        held = [(row.crashes > 1, row.status) for row in self.rows.values() if row.crashes and row.held and row.held[0] == session]
        if alone:
            return can, int(all(held == (False, R) for held in held))
        most = 0 if (True, Q) in held else max(1, held.count((False, R))) - held.count((False, Q))
        return can, max(0, most)

    def owns(self, id_: UUID, epoch: int) -> Row | None:
        row = self.rows[id_]
        return row if row.epoch == epoch and row.status in HELD else None

    def owners(self, pairs: list[tuple[UUID, int]]) -> bytes:
        """Who claimed each of these, as a column: of a task that is named twice the last one."""
        return b"".join(self.claims[pair].bytes for pair in dict(pairs).items())

    def start(self, id_: UUID, epoch: int) -> None:
        row = self.owns(id_, epoch)
        if row is not None and row.status is Q:
            row.move(R)

    def settle(self, statement: str, id_: UUID, epoch: int, by: UUID | None) -> bool:
        """The outcome of one attempt, as its owner or somebody else says; whether it is stale."""
        row = self.owns(id_, epoch) if by in (None, self.claims[id_, epoch]) else None
        if row is None:
            before = self.rows[id_]
            same = {"complete_tasks": {C}, "cancel_tasks": {X}, "fail_tasks": {P, F, X}, "give_back_tasks": {P, X}}[statement]
            return before.epoch != epoch or before.status not in same
        if statement == "complete_tasks":
            row.move(C)
        elif statement == "cancel_tasks":
            row.move(X)
        elif statement == "fail_tasks":
            self.rows_of_attempts += 1
            row.move(X if row.cancelled else F if row.attempt >= row.max_attempts else P)
        else:
            row.attempt -= not row.cancelled
            row.move(X if row.cancelled else P)
        return False

    def take_back(self) -> int:
        lost = [row for row in self.rows.values() if row.held and (row.held[0] in self.dead or row.held[1] < self.streams[row.held[0]])]
        for row in lost:
            assert row.held is not None
            unstarted = row.held[0] not in self.dead and row.status is Q
            self.rows_of_attempts += not unstarted
            if row.cancelled:
                row.move(X)
            elif unstarted:
                row.attempt -= 1
                row.move(P)
            elif row.attempt >= row.max_attempts or row.crashes >= CAP:
                row.move(F)
            else:
                row.crashes += 1
                row.move(P)
        return len(lost)

    def hello(self, session: UUID, named: dict[UUID, int]) -> set[UUID]:
        """A new stream; which of the named tasks are not the session's any more."""
        self.streams[session] += 1
        lost = set()
        for id_, epoch in named.items():
            row = self.rows[id_]
            if row.held and row.held[0] == session and row.epoch == epoch:
                row.held = (session, self.streams[session])
            else:
                lost.add(id_)
        return lost

    def cancel(self, id_: UUID) -> bool:
        row = self.rows[id_]
        if row.status in FINISHED:
            return False
        if row.status is P:
            row.move(X)
        else:
            row.cancelled = True
        return True

    def retry(self, id_: UUID) -> bool:
        row = self.rows[id_]
        if row.status not in FINISHED:
            return False
        row.move(P)
        row.attempt = row.crashes = 0
        row.cancelled = False
        return True
