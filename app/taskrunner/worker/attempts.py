"""Attempts as they wait and as they run."""

import asyncio
import random
from collections.abc import Callable, Mapping
from enum import Enum, auto
from itertools import repeat
from typing import NamedTuple, TypeAlias
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from taskrunner.domain.retry import Backoff, backoff
from taskrunner.sdk import Context, Handler, Isolation
from taskrunner.settings import Settings
from taskrunner.wire.columns import EPOCH, ID, TRACEPARENT, floats, ints, longs, split
from taskrunner.wire.pb.taskrunner.v1 import Tasks

NULL = b"null"
NO_BACKOFF = Backoff()
BACKOFF = TypeAdapter(Backoff)


class Kind(NamedTuple):
    """What the tasks of one message have in common, and what only few have: the traceparents by id. ``arrived`` is monotonic."""

    handler: Handler
    task_type: str
    queue: str
    arrived: float
    took: list[float]  # seconds that attempts of this type ran: each one adds its own
    session: str = ""
    traceparents: Mapping[bytes, bytes] = {}


# One waiting attempt: kind, id, epoch, attempt, max_attempts, timeout, run_at, payload, and its own backoff as JSON, if it has one.
# A tuple: a busy worker makes 100,000 a second.
Waiting: TypeAlias = tuple[Kind, bytes, bytes, int, int, float, int, bytes, bytes]


def unpack(tasks: Tasks, handler: Handler, now: float, took: list[float], session: str = "") -> list[Waiting]:
    """The attempts of one message. Raises ValueError when its columns are torn or not of one length."""
    ids = split(tasks.ids, ID)
    traces = dict(zip(ids, split(tasks.traceparents, TRACEPARENT), strict=True)) if tasks.traceparents else {}
    kind = Kind(handler, tasks.task_type, tasks.queue, now, took, session, traces)
    columns = zip(
        repeat(kind, len(ids)),
        ids,
        split(tasks.epochs, EPOCH),
        ints(tasks.attempts),
        ints(tasks.max_attempts),
        floats(tasks.timeouts),
        longs(tasks.run_ats),
        tasks.payloads or repeat(NULL, len(ids)),
        tasks.backoffs or repeat(b"", len(ids)),
        strict=True,
    )
    return list(columns)


def keys(ids: bytes, epochs: bytes) -> set[bytes]:
    """The attempts that two columns name: id and epoch in one."""
    return {id_ + epoch for id_, epoch in zip(split(ids, ID), split(epochs, EPOCH), strict=True)}


class Why(Enum):
    """Why a running attempt is asked to stop."""

    CANCEL = auto()
    TIMEOUT = auto()
    STOP = auto()  # the worker's grace is over
    LOST = auto()  # it is no longer ours: somebody else may run it already


class Running:
    """One attempt that has started and is not done: suspended on the loop (``task``), in a thread, or in a child (``kill``).

    ``reported`` is true once no outcome is owed any more, though the handler may still run.
    """

    __slots__ = ("asked", "began", "entry", "epoch", "id", "kill", "kind", "noticed", "reported", "task", "timeout", "timer")

    def __init__(self, entry: Waiting, began: float, task: asyncio.Task[None] | None = None) -> None:
        self.entry = entry
        self.kind, self.id, self.epoch, _, _, self.timeout, _, _, _ = entry
        self.began = began
        self.task = task
        self.kill: Callable[[Why], None] | None = None  # called from the loop
        self.asked: Why | None = None
        self.noticed = False
        self.reported = False
        self.timer: asyncio.TimerHandle | None = None

    @property
    def key(self) -> bytes:
        """Id and epoch in one."""
        return self.id + self.epoch

    @property
    def task_id(self) -> str:
        """The id as people see it."""
        return str(UUID(bytes=self.id))

    def log_fields(self) -> dict[str, str | int]:
        """What a log line about it says."""
        return {"task_id": self.task_id, "attempt": self.entry[3], "session": self.kind.session, "task_type": self.kind.task_type}

    @property
    def in_thread(self) -> bool:
        """Nothing can end a thread but itself."""
        return self.kind.handler.isolation is Isolation.THREAD

    def should_stop(self) -> bool:
        """What a thread sees as ``ctx.cancelled``. A function that has seen it and returns has obeyed; one that has not has finished."""
        if self.asked is None:
            return False
        self.noticed = True
        return True

    def clear_timer(self) -> None:
        """Forget the deadline."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def context_of(entry: Waiting, report: Callable[[bytes, bytes, float, str], None], cancelled: Callable[[], bool] = bool) -> Context:
    """What the handler is told about the attempt."""
    kind, id_, epoch, attempt, max_attempts, timeout, run_at, _, _ = entry
    return Context(
        id=id_,
        task_type=kind.task_type,
        queue=kind.queue,
        attempt=attempt,
        max_attempts=max_attempts,
        timeout=timeout,
        run_at=run_at,
        cancelled=cancelled,
        epoch=epoch,
        report=report,
        session=kind.session,
        traceparent=kind.traceparents.get(id_, b"") if kind.traceparents else b"",
    )


def delay_of(entry: Waiting, settings: Settings) -> float:
    """Seconds until the attempt is made again: as the task says, else its handler, else the settings."""
    handler, attempt, raw = entry[0].handler, entry[3], entry[8]
    own = _backoff(raw) if raw else NO_BACKOFF
    base = own.base or handler.backoff_base or settings.backoff_base
    cap = own.cap or handler.backoff_cap or settings.backoff_cap
    return backoff(attempt, base=base, cap=cap, uniform=random.uniform, kind=own.kind)


def _backoff(raw: bytes) -> Backoff:
    """What the task says. The failure path must not be able to fail: what cannot be read is not there."""
    try:
        return BACKOFF.validate_json(raw)
    except ValidationError:
        return NO_BACKOFF
