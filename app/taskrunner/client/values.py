"""What goes into a call and what comes out, typed. Fields that a newer service adds are kept as they came."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict

Scope = Literal["queue", "type"]
Verb = Literal["cancel", "retry", "delete"]
FINISHED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
Time = datetime | str
Seconds = float | timedelta


class Backoff(TypedDict, total=False):
    """How a task's retries are spaced; base and cap are seconds."""

    kind: str
    base: Seconds
    cap: Seconds


class TaskFields(TypedDict, total=False):
    """The fields of a new task beside its type and payload. Times need a zone; durations are seconds or ``timedelta``."""

    queue: str
    priority: int
    run_at: Time
    delay: Seconds
    max_attempts: int
    timeout: Seconds
    backoff: Backoff
    expires_at: Time
    unique_key: str
    on_conflict: Literal["return", "reject", "replace", "postpone"]
    tags: Sequence[str]
    metadata: Mapping[str, Any]
    callback_url: str
    traceparent: str


class Filters(TypedDict, total=False):
    """Which tasks are meant. ``status`` is one word or several; ``error`` is a message of ``GET /api/errors``."""

    status: str | Sequence[str]
    task_type: str
    queue: str
    tag: str | Sequence[str]
    created_after: Time
    created_before: Time
    error: str


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class Attempt(_Value):
    """One attempt that did not succeed. ``run_ms`` is how long it ran, where the worker could say."""

    attempt: int
    outcome: str
    error: str | None = None
    traceback: str | None = None
    worker: str | None = None
    run_ms: int | None = None
    ended_at: datetime


class Task(_Value):
    """A task as the service shows it. ``attempts`` are there when it was asked for by id."""

    id: str
    task_type: str
    queue: str
    priority: int
    payload: Any
    status: str
    run_at: datetime
    attempt: int
    max_attempts: int | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    result: Any = None
    error: str | None = None
    attempts: tuple[Attempt, ...] = ()
    deduplicated: bool = False

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return self.status in FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether it is COMPLETED."""
        return self.status == "COMPLETED"


class Made(_Value):
    """A task of a batch, in the batch's order."""

    id: str
    status: str


class Page(NamedTuple):
    """Tasks as the service sent them, newest first, and where the next page begins; None after the last one."""

    items: list[dict[str, Any]]
    next_cursor: str | None


class Lot(_Value):
    """What waits and runs in a queue, or of a type. The age is that of the oldest task that could run now, in seconds."""

    name: str
    ready: int
    scheduled: int
    running: int
    oldest_ready_age: float | None
    paused: bool


class Worker(_Value):
    """A worker session: LIVE, DRAINING or DEAD. Ages are seconds."""

    session: str
    name: str
    version: str
    address: str
    status: str
    task_types: tuple[str, ...]
    queues: tuple[str, ...]
    slots: int
    in_flight: int
    started_at: datetime
    last_beat_age: float
    lag: float


class Count(_Value):
    """How many tasks fit; there are more where it is not ``complete``."""

    count: int
    complete: bool


class Failures(_Value):
    """FAILED tasks of one type with one kind of error: ``message`` has # for ids and numbers."""

    task_type: str
    message: str
    count: int
    last_at: datetime
    example_id: str


class Bulk(_Value):
    """A change of many tasks, RUNNING, DONE or FAILED: ``matched`` were found so far, ``done`` changed, ``failed`` could not be."""

    id: str
    verb: str
    status: str
    matched: int
    done: int
    failed: int
    error: str | None = None
    created_at: datetime
    finished_at: datetime | None = None


class Event(_Value):
    """Something that happened, as ``GET /api/events`` says it. ``id`` is where to go on from."""

    event: str
    id: str | None = None
    data: Any = None
