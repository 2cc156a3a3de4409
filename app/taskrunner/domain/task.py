"""The values that travel between the rooms."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from taskrunner.domain.lifecycle import Status


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
    """A task to be created. ``payload`` is JSON text. Of ``run_at`` and ``delay`` (seconds) at most one is set; neither means now."""

    task_type: str
    payload: str
    queue: str = "default"
    priority: int = 2
    run_at: datetime | None = None
    delay: float | None = None
    max_attempts: int | None = None
    timeout: float | None = None
    tags: tuple[str, ...] = ()


class Created(NamedTuple):
    """What the database decided about a new task."""

    id: UUID
    run_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it is stored. ``payload`` and ``result`` are JSON text.

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
    """Which tasks a list shows: newest first, ``limit`` of them, older than the id ``before``."""

    limit: int = 50
    before: UUID | None = None
    statuses: tuple[Status, ...] = ()
    task_type: str | None = None
    queue: str | None = None
    tag: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


class Count(NamedTuple):
    """Tasks of one status. Live ones are counted, finished ones are summed from the tally."""

    status: Status
    n: int
