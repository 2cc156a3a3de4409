"""The door for workers without gRPC: claim, beat, settle. Fenced like the stream, and with the same statements."""

import random
import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import TypeAdapter

from taskrunner.api.documents import answer, moment
from taskrunner.api.errors import Fault, Problem
from taskrunner.api.filters import invalid, read_body
from taskrunner.api.pull import Pull
from taskrunner.api.pull_shapes import (
    ERROR_CHARACTERS,
    TRACEBACK_BYTES,
    BeatAnswer,
    BeatBody,
    ClaimAnswer,
    ClaimBody,
    ClaimedTask,
    OutcomeBody,
    SettleAnswer,
    SettleBody,
)
from taskrunner.api.requests import json_body
from taskrunner.api.routes import INVALID, JSON, Answer, Body, Error, Route
from taskrunner.domain.access import Scope
from taskrunner.domain.errors import Unavailable
from taskrunner.domain.retry import Backoff, backoff
from taskrunner.store.claims import Claimed
from taskrunner.store.pulling import Puller, Pulling
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, GIVEN_BACK, Batch, Kind
from taskrunner.store.tasks import Store
from taskrunner.wire import columns

CLAIM, BEAT, SETTLE = TypeAdapter(ClaimBody), TypeAdapter(BeatBody), TypeAdapter(SettleBody)
CLAIM_BYTES = 1 << 20
SETTLE_BYTES = 8 << 20
POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
OVER = Error(409, "session_over", "the session is dead: stop what it held, and claim without a session")
WHO = {"name": "shop-1:4711", "task_types": ["resize"], "max": 5, "wait": 30}
PAIR = ["01a20ca8-aabc-7a76-8a58-f035ed8d43d5", 1]
KINDS: dict[str, Kind] = {
    "COMPLETED": COMPLETED,
    "RETRY": ERROR,
    "FAILED": ERROR,
    "SNOOZED": GIVEN_BACK,
    "RELEASED": GIVEN_BACK,
    "CANCELLED": CANCELLED,
}


class Work:
    """Handlers under ``/api/work``. :meth:`stop` lets those go that wait; :meth:`close` comes after the last call."""

    def __init__(self, store: Store) -> None:
        self._settings = store.settings
        self._told = store.settled  # whoever in this process waits for tasks to end
        self._pulling = Pulling(store.pool, store.meter, lease=self._settings.lease)
        self._pull = Pull(self._pulling, store.hints, self._settings)

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        claimed = Answer("tasks, or none after the wait", ClaimAnswer)
        settled = {"id": PAIR[0], "epoch": 1, "outcome": "COMPLETED", "result": {"n": 1}}
        return [
            Route(
                method="POST",
                path="/api/work/claim",
                handler=self.claim,
                group="work",
                scope=Scope.WORK,
                body=Body({JSON: ClaimBody}, WHO),
                answers={200: claimed},
                errors=(INVALID, OVER),
            ),
            Route(
                method="POST",
                path="/api/work/beat",
                handler=self.beat,
                group="work",
                scope=Scope.WORK,
                body=Body({JSON: BeatBody}, {"session": PAIR[0], "running": [PAIR]}),
                answers={200: Answer("whether the session lives", BeatAnswer)},
                errors=(INVALID,),
            ),
            Route(
                method="POST",
                path="/api/work/settle",
                handler=self.settle,
                group="work",
                scope=Scope.WORK,
                body=Body({JSON: SettleBody}, {"session": PAIR[0], "outcomes": [settled]}),
                answers={200: Answer("what is committed", SettleAnswer)},
                errors=(INVALID,),
            ),
        ]

    async def claim(self, request: web.Request) -> web.Response:
        """Take due tasks, as soon as there are any.

        The tasks are the session's for as long as it lives: for a lease after its last claim, beat or settle. Name in a beat within a
        lease what you hold, or it is given back.
        """
        body = read_body(CLAIM, await json_body(request, most=CLAIM_BYTES))
        who = Puller(body.name, body.task_types, body.queues, body.max)
        claim = await self._pull.claim(body.session, who, wait=body.wait, gone=lambda: request.transport is None)
        if claim is None:
            raise Problem(409, OVER.code, OVER.about)
        tasks = [task for one in claim.claimed for task in _tasks(one)]
        return answer(ClaimAnswer(session=claim.session, lease=self._settings.lease, tasks=tasks))

    async def beat(self, request: web.Request) -> web.Response:
        """Keep the session alive, and hear what is to be cancelled."""
        body = read_body(BEAT, await json_body(request, most=CLAIM_BYTES))
        draining = await self._pulling.renew(body.session)
        if draining is None:
            return answer(BeatAnswer(alive=False, cancel=[], drain=False))
        if body.running:
            await self._pulling.started(body.session, *_columns(body.running))
        self._pull.came_back(await self._pulling.release_unheard(body.session))
        return answer(BeatAnswer(alive=True, cancel=_pairs(*await self._pulling.cancels(body.session)), drain=draining))

    async def settle(self, request: web.Request) -> web.Response:
        """Say how attempts ended; committed when answered."""
        body = read_body(SETTLE, await json_body(request, most=SETTLE_BYTES))
        _refuse_two_ends(body.outcomes)
        await self._pulling.renew(body.session)
        stale: list[tuple[UUID, int]] = []
        for kind in (COMPLETED, ERROR, GIVEN_BACK, CANCELLED):
            outcomes = [one for one in body.outcomes if KINDS[one.outcome] is kind]
            if outcomes:
                stale += await self._settle(body.session, kind, outcomes)
        gone = set(stale)
        done = [(one.id, one.epoch) for one in body.outcomes if (one.id, one.epoch) not in gone]
        return answer(SettleAnswer(settled=done, stale=stale))

    async def _settle(self, session: UUID, kind: Kind, outcomes: Sequence[OutcomeBody]) -> list[tuple[UUID, int]]:
        ids, epochs = _columns((one.id, one.epoch) for one in outcomes)
        batch = Batch(
            ids=ids,
            epochs=epochs,
            sessions=session.bytes,
            results=[None if one.result == "null" else one.result for one in outcomes],
            errors=[None if one.error is None else one.error[:ERROR_CHARACTERS] for one in outcomes],
            tracebacks=[None if one.traceback is None else _tail(one.traceback) for one in outcomes],
            delays=None if kind is COMPLETED else await self._delays(outcomes),
            run_ms=columns.pack_ints([one.run_ms for one in outcomes]),
        )
        settled = await self._pulling.settle(kind, batch)
        if settled.refused:
            reasons = [f"what the worker reported cannot be stored: {reason}" for reason in settled.refused.values()]
            none = [None] * len(reasons)
            part = batch.part([*settled.refused])
            failed = Batch(ids=part.ids, epochs=part.epochs, sessions=part.sessions, errors=reasons, tracebacks=none, delays=none)
            await self._pulling.settle(ERROR, failed)
        self._pull.came_back(settled.back)
        for tell in self._told:
            tell(ids)
        if settled.locked:
            raise Unavailable(f"{len(settled.locked)} of these tasks are locked by somebody's transaction; report them again, all of them")
        return _pairs(settled.stale_ids, settled.stale_epochs)

    async def _delays(self, outcomes: Sequence[OutcomeBody]) -> list[float | None]:
        """Seconds until the next try: none for what is over, or was given back; by backoff where a retry names none."""
        asking = [one.id.bytes for one in outcomes if one.outcome == "RETRY" and one.delay is None]
        attempts = await self._pulling.attempts(b"".join(asking)) if asking else {}
        return [self._delay(one, attempts) for one in outcomes]

    def _delay(self, one: OutcomeBody, attempts: dict[UUID, tuple[int, Backoff]]) -> float | None:
        if one.outcome not in ("RETRY", "SNOOZED"):
            return None
        if one.delay is not None or one.outcome == "SNOOZED":
            return one.delay or 0.0
        attempt, wish = attempts.get(one.id, (1, Backoff()))
        base, cap = wish.base or self._settings.backoff_base, wish.cap or self._settings.backoff_cap
        return backoff(attempt, base=base, cap=cap, uniform=random.uniform, kind=wish.kind)

    def stop(self) -> None:
        """Let those go that wait."""
        self._pull.stop()

    async def close(self) -> None:
        """Give the connection back."""
        await self._pull.close()


def _tasks(one: Claimed) -> Iterable[ClaimedTask]:
    rows = zip(
        columns.split(one.ids, columns.ID),
        columns.longs(one.epochs),
        columns.ints(one.attempts),
        columns.ints(one.max_attempts),
        columns.floats(one.timeouts),
        columns.longs(one.run_ats),
        one.payloads,
        columns.split(one.traceparents, columns.TRACEPARENT) or repeat(b"", one.n),
        strict=True,
    )
    for id_, epoch, attempt, max_attempts, timeout, run_at, payload, traceparent in rows:
        yield ClaimedTask(
            id=UUID(bytes=id_),
            epoch=epoch,
            task_type=one.task_type,
            queue=one.queue,
            attempt=attempt,
            max_attempts=max_attempts,
            timeout=round(timeout, 3),  # PostgreSQL keeps it in four bytes
            run_at=moment(POSTGRES_EPOCH + timedelta(microseconds=run_at)),
            payload=orjson.Fragment(payload),
            traceparent=traceparent.strip(b"\0").decode() or None,
        )


def _refuse_two_ends(outcomes: Sequence[OutcomeBody]) -> None:
    seen: set[tuple[UUID, int]] = set()
    for n, one in enumerate(outcomes):
        if (one.id, one.epoch) in seen:
            raise invalid([Fault(f"/outcomes/{n}", "is of an attempt that is there before: send one outcome for each")])
        seen.add((one.id, one.epoch))


def _columns(pairs: Iterable[tuple[UUID, int]]) -> tuple[bytes, bytes]:
    several = [*pairs]
    return b"".join(id_.bytes for id_, _ in several), struct.pack(f">{len(several)}q", *(epoch for _, epoch in several))


def _pairs(ids: bytes, epochs: bytes) -> list[tuple[UUID, int]]:
    return [(UUID(bytes=id_), epoch) for id_, epoch in zip(columns.split(ids, columns.ID), columns.longs(epochs), strict=True)]


def _tail(text: str) -> str:
    return text.encode()[-TRACEBACK_BYTES:].decode(errors="ignore")
