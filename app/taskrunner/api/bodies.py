"""What may stand in the body of a new task. A validated body *is* the :class:`NewTask` that the store takes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from taskrunner.api.errors import Fault, Problem
from taskrunner.api.fields import (
    CENTURY,
    MONTH,
    BackoffBody,
    Instant,
    Metadata,
    Name,
    Payload,
    Seconds,
    Tag,
    Traceparent,
    UniqueKey,
    WebUrl,
)
from taskrunner.api.guard import pointer
from taskrunner.domain.task import NewTask, OnConflict

TASK_BYTES = 1 << 20
BATCH_BYTES = 8 << 20
BATCH_TASKS = 10_000
PART = 250  # tasks: a millisecond's work
SHOWN_FAULTS = 100

_SHOULD = re.compile(r"^\w+ should ")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskBody(NewTask):
    """A task as a client sends it. ``payload`` is any JSON value and ``{}`` when left out; null stays null."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    task_type: Name
    payload: Payload = "{}"
    queue: Name = "default"
    priority: Annotated[int, Strict(), Field(ge=1, le=4)] = 2
    run_at: Instant = None
    delay: Annotated[Seconds, Field(ge=0, le=CENTURY)] | None = None
    max_attempts: Annotated[int, Strict(), Field(ge=1, le=1000)] | None = None
    timeout: Annotated[Seconds, Field(gt=0, le=MONTH)] | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=20)] = ()
    unique_key: UniqueKey | None = None
    on_conflict: OnConflict = "return"
    expires_at: Instant = None
    backoff: BackoffBody | None = None
    metadata: Metadata = None
    traceparent: Traceparent | None = None
    callback_url: WebUrl | None = None

    def __post_init__(self) -> None:
        """Refuses fields that contradict each other."""
        if self.delay is not None and self.run_at is not None:
            raise PydanticCustomError("delay", "cannot be combined with run_at: send one of them")
        if self.run_at is not None and self.expires_at is not None and self.expires_at <= self.run_at:
            raise PydanticCustomError("expires_at", "must be later than run_at: the task could never start")
        if self.on_conflict != "return" and self.unique_key is None:
            raise PydanticCustomError("on_conflict", "says what a unique_key does: send one, or leave it out")


ONE = TypeAdapter(TaskBody)
MANY = TypeAdapter(list[TaskBody])


def one_task(value: Any) -> NewTask:
    """The task in a body of ``POST /api/tasks``; raises :class:`Problem` with every fault named."""
    try:
        return ONE.validate_python(value)
    except ValidationError as error:
        raise _problem(error) from None


def many_tasks(value: Any) -> Sequence[NewTask]:
    """The tasks in a body of ``POST /api/tasks/batch``; a fault is named by its index, as in ``/3/priority``."""
    if not isinstance(value, list):
        raise Problem(422, "invalid_task", "the body must be a JSON array of tasks", faults=[Fault("", "must be a JSON array of tasks")])
    if len(value) > BATCH_TASKS:
        raise Problem(413, "too_large", f"a batch has at most {BATCH_TASKS} tasks: send {len(value)} tasks in several batches")
    try:
        return MANY.validate_python(value)
    except ValidationError as error:
        raise _problem(error) from None


def is_long(value: Any) -> bool:
    """Whether a body of ``POST /api/tasks/batch`` is worth reading in parts, and can be: nothing in it has a unique key."""
    return (
        isinstance(value, list) and PART < len(value) <= BATCH_TASKS and not any("unique_key" in one for one in value if type(one) is dict)
    )


def in_parts(value: list[Any]) -> Iterator[Sequence[NewTask]]:
    """As ``many_tasks``, bit by bit."""
    for at in range(0, len(value), PART):
        try:
            yield MANY.validate_python(value[at : at + PART])
        except ValidationError:
            many_tasks(value)  # raises with all the faults, by their right names
            raise


def _problem(error: ValidationError) -> Problem:
    details = error.errors(include_url=False, include_context=False, include_input=False)[:SHOWN_FAULTS]
    too_large = any(detail["type"] == "payload_too_large" for detail in details)
    faults = [_fault(detail) for detail in details]
    return Problem(413 if too_large else 422, "too_large" if too_large else "invalid_task", faults[0].sentence(), faults=faults)


def _fault(detail: ErrorDetails) -> Fault:
    where = detail["loc"]
    nested = "backoff" in where
    match detail["type"]:
        case "unexpected_keyword_argument":
            why = f"is not a field of {'backoff' if nested else 'a task'}: leave it out"
        case "missing":
            why = "is required"
        case "dataclass_type":
            why = "must be a JSON object with kind, base and cap" if nested else "must be a JSON object with the fields of a task"
        case "tuple_type":
            why = "must be an array of strings"
        case "delay" | "expires_at" | "on_conflict" as field:
            where, why = (*where, field), detail["msg"]
        case _:
            why = _SHOULD.sub("must ", detail["msg"])
    return Fault(pointer(where), why)
