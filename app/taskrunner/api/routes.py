"""A route and all that is to be said about it, in one place: what is served and what is documented cannot differ."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from aiohttp import web

from taskrunner.domain.access import Scope

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON = "application/json"
NDJSON = "application/x-ndjson"


class Error(NamedTuple):
    """A refusal: ``code`` is the stable word for programs."""

    status: int
    code: str
    about: str


class Answer(NamedTuple):
    """What a status means, and its body: ``model`` is None for none. ``headers`` are name and meaning; ``others`` other media types."""

    about: str
    model: Any = None
    kind: str = JSON
    headers: Mapping[str, str] = {}
    others: Mapping[str, Any] = {}


class Body(NamedTuple):
    """What may be sent. ``kinds`` are media types with the model of each."""

    kinds: Mapping[str, Any]
    example: Any = None
    required: bool = True


class Parameter(NamedTuple):
    """A parameter: ``place`` is query, header or path; ``type`` is what it is read as. A list may be sent several times."""

    name: str
    type: Any
    about: str
    place: str = "query"
    example: Any = None


INTERNAL = Error(500, "internal", "our fault; the log of the service says what")
UNAVAILABLE = Error(503, "unavailable", "the database is away or busy, or the service stops; nothing was done: ask again after Retry-After")
UNKNOWN_HOST = Error(403, "unknown_host", "without tokens the service answers to its own names only")
UNKNOWN = Error(503, "outcome_unknown", "it may have been done: look before you repeat it")
STRANGER = Error(403, "cross_origin", "a page of another site wants to change something")
UNAUTHORIZED = Error(401, "unauthorized", "there are tokens, and none that is good came with the request")
BAD_PARAMETER = Error(400, "invalid_parameter", "a parameter is wrong; errors names it")
NO_TASK = Error(404, "not_found", "no such task: it never was, was deleted, or its retention is over")
CONFLICT = Error(409, "conflict", "the state forbids it; the sentence says which")
CHANGED = Error(412, "precondition_failed", "the task is not any more what If-Match names")
INVALID = Error(422, "invalid_task", "a field is missing, unknown or wrong; errors names each")
BAD_BODY = (
    Error(400, "invalid_json", "the body is not clean JSON; errors names the place"),
    Error(400, "broken_body", "the body ended before it was complete"),
    Error(413, "too_large", "the body, or a payload in it, is too large"),
    Error(415, "unsupported_encoding", "the body is compressed"),
    Error(415, "unsupported_media_type", "the body is a form"),
)

TOO_SLOW = Error(408, "too_slow", "the next line of a stream did not come in time")

TASK_ID = Parameter("id", UUID, "the task", "path", "01a20ca8-aabc-7a76-8a58-f035ed8d43d5")
IF_MATCH = Parameter("If-Match", str, "the ETag of the task as you know it: 412 when it has changed since", "header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one path. ``about`` is the handler's docstring unless it is given; ``scope`` is what a caller's token must be good for,
    None where everyone may come.
    """

    method: str
    path: str
    handler: Handle
    group: str
    scope: Scope | None
    answers: Mapping[int, Answer]
    body: Body | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[Error, ...] = ()
    about: str = ""

    def definition(self, guarded: Handle) -> web.RouteDef:
        """As aiohttp takes it, with the handler behind its guard; GET answers HEAD too."""
        if self.method == "GET":
            return web.get(self.path, guarded)
        return web.route(self.method, self.path, guarded)

    @property
    def refusals(self) -> tuple[Error, ...]:
        """All errors that it may answer with, those that follow from what it is included."""
        implied: tuple[Error, ...] = (INTERNAL, UNAVAILABLE)
        if self.scope is not None:
            implied += (
                UNAUTHORIZED,
                Error(403, "forbidden", f"the token is not good for that: it needs the scope {self.scope}"),
                UNKNOWN_HOST,
            )
        if self.parameters:
            implied += (BAD_PARAMETER,)
        if self.method != "GET":
            implied += (STRANGER, UNKNOWN)
        if self.body is not None:
            implied += BAD_BODY
        return tuple(dict.fromkeys((*self.errors, *implied)))

    @property
    def words(self) -> str:
        """What it does, in words."""
        return self.about or (self.handler.__doc__ or "").strip()
