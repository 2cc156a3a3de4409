"""Which tasks are meant: the same words in a query string, in the body of a bulk operation and for events."""

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar, get_origin
from uuid import UUID

from multidict import MultiMapping
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from taskrunner.api.errors import Fault, Problem, bad_parameter
from taskrunner.api.fields import instant
from taskrunner.api.guard import pointer
from taskrunner.api.routes import Parameter
from taskrunner.domain.lifecycle import Status
from taskrunner.domain.task import TaskFilter

LIMIT = 50
MOST = 500
_SHOULD = re.compile(r"^\w+ should ")
WORDS = "must be 1 to 200 characters of UTF-8 without NUL"

Query = TypeVar("Query", bound=BaseModel)
T = TypeVar("T")


def _storable(text: str) -> str:
    """What no task can have is refused before the database refuses it less clearly."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise PydanticCustomError("word", WORDS)
    return text


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _cursor(text: str) -> UUID:
    try:
        return UUID(bytes=base64.b64decode(text + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError):
        raise PydanticCustomError("cursor", "must be the next_cursor of an earlier answer, unchanged") from None


def cursor_after(id: UUID) -> str:  # noqa: A002 — the column's name
    """Where the page after the task of this id begins; opaque to clients."""
    return base64.urlsafe_b64encode(id.bytes).rstrip(b"=").decode()


Word = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_storable)]
Message = Annotated[str, StringConstraints(max_length=200), AfterValidator(_storable)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_several, json_schema_input_type=Word | list[Word]), Field(max_length=20)]
Statuses = Annotated[tuple[Status, ...], BeforeValidator(_several, json_schema_input_type=Status | list[Status]), Field(max_length=20)]
Instant = Annotated[datetime, PlainValidator(instant, json_schema_input_type=datetime)]
Cursor = Annotated[UUID, PlainValidator(_cursor, json_schema_input_type=str)]


class Filter(BaseModel):
    """Tasks that fit all of what is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Statuses = Field((), description="one of these: several with commas, or sent again")
    task_type: Word | None = Field(None, description="of this type")
    queue: Word | None = Field(None, description="in this queue")
    tag: Words = Field((), description="with all of these tags: send it again for another one")
    created_after: Instant | None = Field(None, description="created after this time")
    created_before: Instant | None = Field(None, description="created before this time")
    error: Message | None = Field(None, description="with an error of this kind: a message of GET /api/errors")

    def tasks(self, *, limit: int = LIMIT, before: UUID | None = None) -> TaskFilter:
        """As the store takes it."""
        return TaskFilter(
            limit=limit,
            before=before,
            statuses=tuple(status for status in Status if status in self.status),
            task_type=self.task_type,
            queue=self.queue,
            tags=self.tag,
            created_after=self.created_after,
            created_before=self.created_before,
            error=self.error,
        )


class PageQuery(Filter):
    """The parameters of ``GET /api/tasks``."""

    limit: Annotated[int, Field(ge=1, le=MOST)] = Field(LIMIT, description=f"tasks on the page, at most {MOST}")
    cursor: Cursor | None = Field(None, description="the next_cursor of the page before")


class EventQuery(BaseModel):
    """The parameters of ``GET /api/events``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Statuses = Field((), description="only these statuses: several with commas, or sent again")
    task_type: Word | None = Field(None, description="only this type")
    queue: Word | None = Field(None, description="only this queue")
    tag: Words = Field((), description="only tasks with all of these tags: send it again for another one")
    sample: bool = Field(default=False, description="true: some of what happens, without ids to go on from; for a page that shows it")


def parameters_of(model: type[BaseModel]) -> tuple[Parameter, ...]:
    """The fields of ``model`` as query parameters."""
    found = []
    for name, field in model.model_fields.items():
        kind = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        found.append(Parameter(name, kind, field.description or ""))
    return tuple(found)


def read_query(model: type[Query], query: MultiMapping[str]) -> Query:
    """The parameters of a query string; raises a 400 :class:`Problem` that names the first wrong one."""
    values: dict[str, Any] = {}
    for name in dict.fromkeys(query):
        field = model.model_fields.get(name)
        texts = query.getall(name)
        if field is None:
            raise bad_parameter(name[:100], f"is not a parameter of this path: it takes {', '.join(model.model_fields)}")
        if get_origin(field.annotation) is tuple:
            values[name] = [word.strip() for text in texts for word in text.split(",")] if name == "status" else texts
        elif len(texts) > 1:
            raise bad_parameter(name, "is there twice: send it once")
        else:
            values[name] = texts[0]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_context=False, include_input=False)[0]
        hint = " (write + as %2B)" if detail["type"] == "instant" else ""
        raise bad_parameter(str(detail["loc"][0]), _why(detail["type"], detail["msg"]) + hint) from None


def read_body(model: TypeAdapter[T], value: Any) -> T:
    """The fields of a JSON body; raises a 422 :class:`Problem` that names each wrong one."""
    try:
        return model.validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        faults = [Fault(pointer(detail["loc"]), _why(detail["type"], detail["msg"])) for detail in details]
        raise invalid(faults) from None


def invalid(faults: Sequence[Fault]) -> Problem:
    """422 for fields that are wrong."""
    return Problem(422, "invalid_task", faults[0].sentence(), faults=faults)


def _why(kind: str, message: str) -> str:
    match kind:
        case "enum":
            return f"must be one or more of {', '.join(Status)}"
        case "string_too_short" | "string_too_long":
            return WORDS
        case "extra_forbidden" | "unexpected_keyword_argument":
            return "is not a field of this body: leave it out"
        case "model_type" | "model_attributes_type" | "dataclass_type":
            return "must be a JSON object"
        case "tuple_type":
            return "must be an array"
        case _:
            return _SHOULD.sub("must ", message)
