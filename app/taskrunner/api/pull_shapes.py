"""What a worker that pulls sends and is answered."""

from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, Strict, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from taskrunner.api.fields import Name, Seconds
from taskrunner.api.shapes import Json, Moment
from taskrunner.domain.lanes import BATCH

RESULT_BYTES = 1 << 20
ERROR_CHARACTERS = 2_000
TRACEBACK_BYTES = 8_192
YEAR = 366 * 86_400
LONGEST_WAIT = 60
MOST_PAIRS = 10_000


def _result(value: Any) -> str:
    text = orjson.dumps(value)
    if len(text) > RESULT_BYTES:
        raise PydanticCustomError("result_too_large", "must be at most 1 MiB of JSON: store large things elsewhere and return a reference")
    return text.decode()


def _pair(value: Any) -> Any:
    if not isinstance(value, list) or len(value) != 2:
        raise PydanticCustomError("pair", "must be a pair: [id, epoch]")
    return value


Epoch = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
Pair = Annotated[tuple[UUID, Epoch], BeforeValidator(_pair)]
# Without prefixItems, which not every reader of OpenAPI 3.1 knows.
HeldPair = Annotated[tuple[UUID, int], WithJsonSchema({"type": "array", "minItems": 2, "maxItems": 2, "description": "id and epoch"})]
Result = Annotated[str, PlainValidator(_result), WithJsonSchema({"description": "any JSON value, at most 1 MiB"})]
Word = Annotated[str, Strict()]
OutcomeWord = Literal["COMPLETED", "RETRY", "FAILED", "SNOOZED", "RELEASED", "CANCELLED"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClaimBody(_Body):
    """Who asks, what it can run, and how long it waits for something. The first claim begins a session; later ones name it."""

    session: UUID | None = Field(None, description="as the first claim answered it")
    name: Annotated[Word, StringConstraints(max_length=200)] = Field("", description="for people: host and process")
    task_types: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)] = Field(description="nothing else is sent")
    queues: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000)] = Field(("*",), description="* is every queue")
    max: Annotated[int, Strict(), Field(ge=1, le=BATCH)] = Field(1, description=f"tasks at most, up to {BATCH}")
    wait: Annotated[Seconds, Field(ge=0, le=LONGEST_WAIT)] = Field(0, description="seconds to wait until there is one")


class BeatBody(_Body):
    """A sign of life, with everything that the worker holds: (id, epoch) of all whose settle is not answered yet."""

    session: UUID
    running: Annotated[tuple[Pair, ...], Field(max_length=MOST_PAIRS)] = ()


class OutcomeBody(_Body):
    """How one attempt ended. ``RETRY`` without a delay is retried by backoff; ``SNOOZED`` and ``RELEASED`` give the attempt back."""

    id: UUID
    epoch: Epoch
    outcome: OutcomeWord
    result: Result = Field("null", description="of COMPLETED: any JSON value, at most 1 MiB", validate_default=False)
    error: Word | None = Field(None, description=f"the first {ERROR_CHARACTERS} characters are kept")
    traceback: Word | None = Field(None, description=f"the last {TRACEBACK_BYTES} bytes are kept")
    delay: Annotated[Seconds, Field(ge=0, le=YEAR)] | None = Field(None, description="of RETRY and SNOOZED: seconds until the next try")
    run_ms: Annotated[int, Strict(), Field(ge=0, lt=2**31)] = Field(0, description="how long it ran")


class SettleBody(_Body):
    """Outcomes of attempts. Sending them again does no harm."""

    session: UUID
    outcomes: Annotated[tuple[OutcomeBody, ...], Field(max_length=MOST_PAIRS)]


class ClaimedTask(TypedDict):
    """An attempt to run. ``epoch`` is its fence: it goes back with everything that is said about it."""

    id: UUID
    epoch: int
    task_type: str
    queue: str
    attempt: int
    max_attempts: int
    timeout: float
    run_at: Moment
    payload: Json
    traceparent: str | None


class ClaimAnswer(TypedDict):
    """The session, the seconds that it lives without a sign, and the tasks, which may be none."""

    session: UUID
    lease: float
    tasks: list[ClaimedTask]


class BeatAnswer(TypedDict):
    """Whether the session lives (if not: stop everything), which of its tasks somebody asked to cancel, and whether it is to end."""

    alive: bool
    cancel: list[HeldPair]
    drain: bool


class SettleAnswer(TypedDict):
    """What is committed, and what was no longer this worker's, so that nothing was written."""

    settled: list[HeldPair]
    stale: list[HeldPair]
