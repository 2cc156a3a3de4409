"""The answers as types: what mypy holds the documents to, and what OpenAPI shows. Nothing is validated on the way out."""

from typing import Annotated, Any, Literal, NotRequired
from uuid import UUID

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from taskrunner.domain.access import Scope
from taskrunner.domain.lifecycle import Status

Moment = Annotated[Any, WithJsonSchema({"type": "string", "format": "date-time", "example": "2026-11-24T08:25:12.000000Z"})]
MomentOrNull = Annotated[Any, WithJsonSchema({"type": ["string", "null"], "format": "date-time"})]
Json = Annotated[Any, WithJsonSchema({"description": "any JSON value"})]


class Task(TypedDict):
    """A task as it is stored. ``redacted``: the token is not good for payloads, and what is in the task is null."""

    id: UUID
    task_type: str
    queue: str
    priority: int
    payload: Json
    status: Status
    run_at: Moment
    attempt: int
    max_attempts: int | None
    timeout: float | None
    tags: list[str]
    created_at: Moment
    updated_at: Moment
    finished_at: MomentOrNull
    cancel_requested_at: MomentOrNull
    result: Json
    error: str | None
    unique_key: str | None
    expires_at: MomentOrNull
    backoff: Json
    metadata: Json
    traceparent: str | None
    callback_url: str | None
    progress: float | None
    progress_message: str | None
    redacted: NotRequired[Literal[True]]


class ExistingTask(Task):
    """A task that was there already."""

    deduplicated: Literal[True]


class Attempt(TypedDict):
    """An attempt that did not succeed."""

    attempt: int
    outcome: str
    error: str | None
    traceback: str | None
    worker: str | None
    run_ms: int | None
    ended_at: Moment


class TaskWithAttempts(Task):
    """A task with those of its attempts that did not succeed, oldest first."""

    attempts: list[Attempt]


class TaskPage(TypedDict):
    """Some tasks; ``next_cursor`` is null on the last page."""

    items: list[Task]
    next_cursor: str | None


class Count(TypedDict):
    """How many tasks fit. ``complete`` is false where there are more than were counted."""

    count: int
    complete: bool


class NewTaskRow(TypedDict):
    """What became of one task of a batch."""

    id: UUID
    status: Status
    deduplicated: NotRequired[Literal[True]]


class Batch(TypedDict):
    """The tasks of a batch, in its order."""

    items: list[NewTaskRow]


class Message(TypedDict):
    """A word from the service."""

    msg: str


class Counts(TypedDict):
    """What happened in a stretch of time. ``start_…`` are seconds from ``run_at`` to the claim for a worker: p50, p95, p99."""

    created: int
    completed: int
    failed: int
    cancelled: int
    retried: int
    start_p50: float | None
    start_p95: float | None
    start_p99: float | None


class Point(Counts):
    """What happened from ``at`` on, for ``step`` seconds."""

    at: Moment


class Now(TypedDict):
    """What is live: ready to be claimed, for later, and at a worker. The age is in seconds."""

    ready: int
    scheduled: int
    running: int
    oldest_ready_age: float | None


class Stats(TypedDict):
    """Tasks by status: live ones as they are, finished ones within retention. And what happened in the window, oldest point first."""

    tasks: dict[Status, int]
    window: int
    step: int
    now: Now
    totals: Counts
    points: list[Point]


class Failures(TypedDict):
    """FAILED tasks of one type with one kind of error. ``message`` has # for ids and numbers."""

    task_type: str
    message: str
    count: int
    last_at: Moment
    example_id: UUID


class Errors(TypedDict):
    """Kinds of errors, most frequent first; 200 at most."""

    items: list[Failures]


class Lot(TypedDict):
    """What waits and runs under one name."""

    name: str
    ready: int
    scheduled: int
    running: int
    oldest_ready_age: float | None
    paused: bool


class Lots(TypedDict):
    """All queues, or all types, by name."""

    items: list[Lot]


class Gate(TypedDict):
    """Whether a queue or a type is paused."""

    name: str
    paused: bool


class Worker(TypedDict):
    """A worker session. Ages are seconds."""

    session: UUID
    name: str
    version: str
    address: str
    status: Literal["LIVE", "DRAINING", "DEAD"]
    task_types: list[str]
    queues: list[str]
    slots: int
    in_flight: int
    started_at: Moment
    last_beat_age: float
    lag: float


class Workers(TypedDict):
    """Sessions that live, and those that died within the last hour; newest first."""

    items: list[Worker]


class Bulk(TypedDict):
    """A bulk operation. ``matched`` tasks were found so far; of them ``done`` were changed and ``failed`` could not be."""

    id: UUID
    verb: Literal["cancel", "retry", "delete"]
    status: Literal["RUNNING", "DONE", "FAILED"]
    matched: int
    done: int
    failed: int
    error: str | None
    created_at: Moment
    finished_at: MomentOrNull


class Session(TypedDict):
    """What the sender may do. ``required``: a token is needed; ``name`` is the token's, null where none is needed or none is there."""

    required: bool
    name: str | None
    scopes: list[Scope]


class Fault(TypedDict, total=False):
    """One thing that is wrong: where, as a JSON pointer or a line of a stream, and why."""

    pointer: str
    detail: str
    line: int


class _Always(TypedDict):
    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    error: str


class Problem(_Always, total=False):
    """RFC 9457. ``code`` is for programs; ``error`` repeats ``detail``, as the first taskrunner had it."""

    errors: list[Fault]
