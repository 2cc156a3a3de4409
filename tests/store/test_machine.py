"""A state machine drives the real store beside the model, and both must agree after each step."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule, run_state_machine_as_test
from store.desk import Desk, Held, opened
from store.model import Model, Row

from taskrunner.domain.errors import Conflict
from taskrunner.domain.lanes import Serves
from taskrunner.store.claims import Seat
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, GIVEN_BACK, Kind

R = TypeVar("R")
SERVES = Serves((("t", 5, 300.0),), None)
Pair = tuple[UUID, int]


class Machine(RuleBasedStateMachine):
    """``desk`` and ``runner`` are set by the test that runs it."""

    desk: ClassVar[Desk]
    runner: ClassVar[asyncio.Runner]
    tasks = Bundle("tasks")
    workers = Bundle("workers")
    claims = Bundle("claims")

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.run(self._empty())

    async def _empty(self) -> None:
        await self.desk.db.execute("truncate tasks_live, tasks_finished, attempts, tally, sessions")

    @rule(target=tasks, n=st.integers(1, 3), attempts=st.integers(1, 3))
    def create(self, n: int, attempts: int) -> Any:
        ids = self.run(self.desk.create(n, max_attempts=attempts))
        self.model.rows |= {id_: Row(max_attempts=attempts) for id_ in ids}
        return multiple(*ids)

    @rule(target=workers)
    def work(self) -> UUID:
        seat = self.run(self.desk.worker())
        self.model.streams[seat.session] = seat.stream
        return seat.session

    @rule(target=claims, worker=workers, n=st.integers(1, 4), behind=st.integers(0, 1))
    def claim(self, worker: UUID, n: int, behind: int) -> Any:
        """``behind``: on the stream before the session's own, which nobody may claim for."""
        can = self.model.claimable()
        seat = Seat(worker, self.model.streams[worker] - behind, 1)
        held = self.run(self.desk.claim(seat, n))
        refused = behind or worker in self.model.dead
        assert len(held.ids) == len(set(held.ids)) == (0 if refused else min(n, len(can)))
        assert set(held.ids) <= can
        pairs = list(zip(held.ids, held.epochs, strict=True))
        for id_, epoch in pairs:
            self.model.claimed(id_, epoch, worker)
        return multiple(*pairs)

    @rule(target=claims, worker=workers, n=st.integers(1, 4), alone=st.booleans())
    def claim_suspects(self, worker: UUID, n: int, alone: bool) -> Any:
        can, most = self.model.suspects(worker, alone=alone)
        claimed = self.run(self.desk.claims.claim_suspects(SERVES, [Seat(worker, self.model.streams[worker], n)], alone=alone))
        assert len(claimed) == (0 if worker in self.model.dead else min(n, most, len(can)))
        pairs = [(UUID(bytes=one.ids), int.from_bytes(one.epochs, "big")) for one in claimed]
        for id_, epoch in pairs:
            assert id_ in can
            self.model.claimed(id_, epoch, worker)
        return multiple(*pairs)

    @rule(pairs=st.lists(claims, min_size=1, max_size=3))
    def start(self, pairs: list[Pair]) -> None:
        self.run(self.desk.settling.start(*held(pairs).blobs, self.model.owners(pairs)))
        for id_, epoch in dict(pairs).items():
            self.model.start(id_, epoch)

    @rule(
        pairs=st.lists(claims, min_size=1, max_size=3),
        kind=st.sampled_from([COMPLETED, ERROR, GIVEN_BACK, CANCELLED]),
        by=st.one_of(st.none(), workers),
    )
    def settle(self, pairs: list[Pair], kind: Kind, by: UUID | None) -> None:
        """By whoever claimed it once, however long ago, or by somebody who never did."""
        batch = held(pairs)
        columns = {"results": None, "errors": "e", "tracebacks": None, "delays": 0.0}
        said = replace(batch.batch(**columns), sessions=by.bytes if by else self.model.owners(pairs))
        settled = self.run(self.desk.settling.settle(kind, said))
        stale = {UUID(bytes=settled.stale_ids[n : n + 16]) for n in range(0, len(settled.stale_ids), 16)}
        assert stale == {id_ for id_, epoch in dict(pairs).items() if self.model.settle(kind.statement, id_, epoch, by)}

    @rule(worker=workers, pairs=st.lists(claims, max_size=4))
    def hello(self, worker: UUID, pairs: list[Pair]) -> None:
        named = held(pairs)
        accepted = self.run(self.desk.hello(worker, named, resumed=True))
        if worker in self.model.dead:
            assert accepted is None
            return
        assert accepted is not None
        lost = {UUID(bytes=accepted.lost_ids[n : n + 16]) for n in range(0, len(accepted.lost_ids), 16)}
        assert lost == self.model.hello(worker, dict(zip(named.ids, named.epochs, strict=True)))
        assert accepted.stream == self.model.streams[worker]

    @rule(worker=workers)
    def die(self, worker: UUID) -> None:
        self.run(self._expire(worker))
        ended = {session for session, _ in self.run(self.desk.sessions.end_dead(longest=700))}
        assert ended == {worker} - self.model.dead
        self.model.dead.add(worker)

    async def _expire(self, worker: UUID) -> None:
        await self.desk.db.execute("update sessions set lease_until = clock_timestamp() - interval '1 s' where id = %s", (worker,))

    @rule()
    def take_back(self) -> None:
        n, _ = self.run(self.desk.sessions.take_back())
        assert n == self.model.take_back()

    @rule(id_=tasks)
    def cancel(self, id_: UUID) -> None:
        assert self.changed(self.desk.store.cancel(id_)) == self.model.cancel(id_)

    @rule(id_=tasks)
    def retry(self, id_: UUID) -> None:
        assert self.changed(self.desk.store.retry(id_)) == self.model.retry(id_)

    def changed(self, work: Coroutine[Any, Any, Any]) -> bool:
        try:
            return self.run(work) is not None
        except Conflict:
            return False

    @invariant()
    def both_agree(self) -> None:
        query = "select id, status, attempt, epoch, crashes, session, stream from tasks"
        rows = {row.pop("id"): tuple(row.values()) for row in self.run(self.desk.rows(query))}
        assert rows == {id_: row.facts() for id_, row in self.model.rows.items()}

    def teardown(self) -> None:
        (row,) = self.run(self.desk.rows("select count(*) as n from attempts"))
        assert row["n"] == self.model.rows_of_attempts
        ended = {one.status: one.n for one in self.run(self.desk.store.counts())}
        statuses = [row.status.value for row in self.model.rows.values()]
        assert ended == {status: statuses.count(status) for status in set(statuses)}


def held(pairs: list[Pair]) -> Held:
    """As a batch: the last claim of each task."""
    named = dict(pairs)
    return Held(UUID(int=0), 0, [*named], [*named.values()])


def test_the_store_does_what_the_model_says(dsn: str) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        desk = runner.run(stack.enter_async_context(opened(dsn)))
        runner.run(desk.upkeep.make_leaves())
        try:
            driven = type("Driven", (Machine,), {"desk": desk, "runner": runner})
            quick = settings(max_examples=30, stateful_step_count=30, suppress_health_check=[*HealthCheck], database=None)
            run_state_machine_as_test(driven, settings=quick)
        finally:
            runner.run(stack.aclose())
