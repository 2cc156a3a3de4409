"""The values that travel between the rooms."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias
from uuid import UUID

from taskrunner.domain.lifecycle import Status
from taskrunner.domain.retry import Backoff

OnConflict: TypeAlias = Literal["return", "reject", "replace", "postpone"]


MOST_ATTEMPTS = 1_000
LONGEST_TIMEOUT = 30 * 86_400  # seconds


class Lane(NamedTuple):
    """Tasks that are claimed from one place of the index, in order of time. ``key`` is room for limits to come; it is always None."""

    queue: str
    task_type: str
    priority: int
    key: str | None = None


class Back(NamedTuple):
    """Tasks went back to ``lane``: the first is for ``run_at``, in ``due_in`` seconds."""

    lane: Lane
    run_at: datetime
    due_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to be created. ``payload`` and ``metadata`` are JSON text. Of ``run_at`` and ``delay`` (seconds) at most one is set; neither
    means now. ``unique_key`` is unique among live tasks, and ``on_conflict`` says what becomes of a second one.
    """

    task_type: str
    payload: str
    queue: str = "default"
    priority: int = 2
    run_at: datetime | None = None
    delay: float | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()
    unique_key: str | None = None
    on_conflict: OnConflict = "return"
    expires_at: datetime | None = None
    backoff: Backoff | None = None
    metadata: str | None = None
    traceparent: str | None = None
    callback_url: str | None = None


class Created(NamedTuple):
    """What the database decided about a new task. ``deduplicated``: a live one with the same unique key was there, and this is it."""

    id: UUID
    run_at: datetime
    created_at: datetime
    deduplicated: bool = False


class IdempotencyKey(NamedTuple):
    """The Idempotency-Key of a request, with the method and path that it belongs to, and what identifies its body."""

    key: str
    fingerprint: bytes


class Answer(NamedTuple):
    """What became of a request to create tasks. ``replayed``: a request with this Idempotency-Key got this answer before."""

    created: list[Created]
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it is stored. ``payload``, ``result``, ``backoff`` and ``metadata`` are JSON text.

    ``max_attempts`` and ``timeout`` (seconds) are None until the first claim, unless given.
    """

    id: UUID
    task_type: str
    queue: str
    priority: int
    payload: str
    status: Status
    run_at: datetime
    attempt: int
    max_attempts: int | None
    timeout: float | None
    tags: list[str]
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    result: str | None
    error: str | None
    unique_key: str | None
    expires_at: datetime | None
    backoff: str | None
    metadata: str | None
    traceparent: str | None
    callback_url: str | None
    progress: float | None
    progress_message: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedAttempt:
    """One attempt that did not succeed. ``run_ms`` is how long it ran, where the worker could say."""

    attempt: int
    outcome: str
    error: str | None
    traceback: str | None
    worker: str | None
    run_ms: int | None
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFilter:
    """Which tasks a list shows: newest first, ``limit`` of them, older than the id ``before``.

    ``error`` is what errors of one kind have in common, as ``Stats.failures`` has it.
    """

    limit: int = 50
    before: UUID | None = None
    statuses: tuple[Status, ...] = ()
    task_type: str | None = None
    queue: str | None = None
    tags: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    error: str | None = None


class Count(NamedTuple):
    """Tasks of one status. Live ones are counted, finished ones are summed from the tally."""

    status: Status
    n: int
