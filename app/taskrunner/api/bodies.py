"""What may stand in the body of a new task. A validated body *is* the :class:`NewTask` that the store takes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import ConfigDict, Field, PlainValidator, Strict, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from taskrunner.api.errors import Fault, Problem
from taskrunner.api.guard import pointer
from taskrunner.domain.task import NewTask

TASK_BYTES = 1 << 20
BATCH_BYTES = 8 << 20
BATCH_TASKS = 10_000
PAYLOAD_BYTES = 256 << 10
CENTURY = 36_525 * 86_400  # the longest delay, in seconds
MONTH = 30 * 86_400  # the longest timeout
SHOWN_FAULTS = 100

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SHOULD = re.compile(r"^\w+ should ")


def instant(value: Any) -> datetime:
    """An RFC 3339 time, in UTC. Without an offset a time means something else to everyone: refused."""
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):  # 30 February, 24:00, or outside the years 1 to 9999 in UTC
            pass
    raise PydanticCustomError("instant", "must be an RFC 3339 time with an offset, such as 2026-02-20T10:00:00Z")


def _instant_or_null(value: Any) -> datetime | None:
    return None if value is None else instant(value)


def _payload(value: Any) -> str:
    text = orjson.dumps(value)
    if len(text) > PAYLOAD_BYTES:
        raise PydanticCustomError("payload_too_large", "must be at most 256 KiB of JSON: store large things elsewhere and send a reference")
    return text.decode()


Name = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200)]
Tag = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=100)]
Seconds = Annotated[float, Strict()]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskBody(NewTask):
    """A task as a client sends it. ``payload`` is any JSON value and ``{}`` when left out; null stays null."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    task_type: Name
    payload: Annotated[str, PlainValidator(_payload)] = "{}"
    queue: Name = "default"
    priority: Annotated[int, Strict(), Field(ge=1, le=4)] = 2
    run_at: Annotated[datetime | None, PlainValidator(_instant_or_null)] = None
    delay: Annotated[Seconds, Field(ge=0, le=CENTURY)] | None = None
    max_attempts: Annotated[int, Strict(), Field(ge=1, le=1000)] | None = None
    timeout: Annotated[Seconds, Field(gt=0, le=MONTH)] | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=20)] = ()

    def __post_init__(self) -> None:
        """Refuses a task with two times."""
        if self.delay is not None and self.run_at is not None:
            raise PydanticCustomError("two_times", "cannot be combined with run_at: send one of them")


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


def _problem(error: ValidationError) -> Problem:
    details = error.errors(include_url=False, include_context=False, include_input=False)[:SHOWN_FAULTS]
    too_large = any(detail["type"] == "payload_too_large" for detail in details)
    faults = [_fault(detail) for detail in details]
    return Problem(413 if too_large else 422, "too_large" if too_large else "invalid_task", faults[0].sentence(), faults=faults)


def _fault(detail: ErrorDetails) -> Fault:
    where = detail["loc"]
    match detail["type"]:
        case "unexpected_keyword_argument":
            why = "is not a field of a task: leave it out"
        case "missing":
            why = "is required"
        case "dataclass_type":
            why = "must be a JSON object with the fields of a task"
        case "tuple_type":
            why = "must be an array of strings"
        case "two_times":
            where, why = (*where, "delay"), detail["msg"]
        case _:
            why = _SHOULD.sub("must ", detail["msg"])
    return Fault(pointer(where), why)
