"""Every refusal and every failure as one document: RFC 9457 ``application/problem+json``, with the seed's ``error`` sentence in it."""

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from time import monotonic
from typing import NamedTuple

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from taskrunner.api.guard import BadJson
from taskrunner.domain.errors import BadTask, Conflict, KeyInFlight, KeyReused, OutcomeUnknown, Unavailable


class Fault(NamedTuple):
    """One thing that is wrong: where (a JSON pointer; "" is the whole body, or the ``line`` of a stream) and why."""

    pointer: str
    detail: str
    line: int | None = None

    def sentence(self) -> str:
        """The fault in words: ``priority must be …``, ``/3/priority must be …``, ``the body must be …``."""
        where = self.pointer or "the body"
        return f"{where[1:] if where.count('/') == 1 and not where[1:].isdecimal() else where} {self.detail}"


class Problem(Exception):
    """An answer that is not what was asked for. ``code`` is the stable word for programs, ``detail`` the sentence for people."""

    def __init__(
        self, status: int, code: str, detail: str, *, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.faults = faults
        self.headers = headers or {}


def bad_parameter(name: str, detail: str) -> Problem:
    """400 for a query parameter or a part of the path."""
    return Problem(400, "invalid_parameter", f"{name} {detail}", faults=[Fault(f"/{name}", detail)])


def not_found() -> Problem:
    """404 for an id that no task has."""
    return Problem(404, "not_found", "there is no task with this id: it never existed, was deleted, or its retention is over")


def problem_of(error: Exception) -> Problem:
    """What the client is told about ``error``. Of what we did not expect it learns nothing."""
    match error:
        case Problem():
            problem = error
        case BadJson():
            fault = Fault(error.pointer, error.detail)
            problem = Problem(400, "invalid_json", fault.sentence(), faults=[fault])
        case BadTask():
            fault = Fault("", f"was refused by the database: {error}")
            problem = Problem(422, "invalid_task", fault.sentence(), faults=[fault])
        case Conflict():
            problem = Problem(409, "conflict", str(error))
        case KeyInFlight() | KeyReused():
            problem = _of_key(error)
        case Unavailable():
            problem = Problem(503, "unavailable", str(error), headers={"Retry-After": "1"})
        case OutcomeUnknown():
            problem = Problem(503, "outcome_unknown", str(error))
        case web.HTTPException():
            problem = _of_aiohttp(error)
        case web.RequestPayloadError() | ConnectionError():
            problem = Problem(400, "broken_body", "the body ended before it was complete")
        case _:
            problem = Problem(500, "internal", "something went wrong on our side: the log of the service says what")
    return problem


def _of_key(error: KeyInFlight | KeyReused) -> Problem:
    if isinstance(error, KeyReused):
        return Problem(422, "idempotency_key_reused", str(error))
    return Problem(409, "in_flight", str(error), headers={"Retry-After": "1"})


def _of_aiohttp(error: web.HTTPException) -> Problem:
    phrase = HTTPStatus(error.status).phrase
    code = phrase.lower().replace(" ", "_")
    match error.status:
        case 404:
            return Problem(404, "not_found", "nothing is served at this path")
        case 405:
            allow = error.headers.get("Allow", "")
            return Problem(405, code, f"this path answers only {allow}", headers={"Allow": allow})
        case 413:
            return Problem(413, "too_large", "the body is larger than this path takes")
        case _:
            return Problem(error.status, code, error.text or phrase)


def render(problem: Problem, instance: str) -> web.Response:
    """The document. ``instance`` is the path that was asked for."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": instance,
        "code": problem.code,
        "error": problem.detail,
    }
    if problem.faults:
        document["errors"] = [{name: value for name, value in fault._asdict().items() if value is not None} for fault in problem.faults]
    headers = {"Content-Type": "application/problem+json", **problem.headers}
    return web.Response(status=problem.status, body=orjson.dumps(document), headers=headers)


class Refusals:
    """Answers to requests that failed. 5xx are logged, those that we expect once a second."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("taskrunner.api")
        self._muted: dict[str, float] = {}  # until when, by code

    def answer(self, request: web.Request, error: Exception) -> web.Response:
        """Whatever it is, the client gets an answer and the log its reason."""
        problem = problem_of(error)
        path = request.rel_url.raw_path
        now = monotonic()
        if problem.status >= 500 and (problem.code == "internal" or now >= self._muted.get(problem.code, 0.0)):
            self._muted[problem.code] = now + 1.0
            trace = error if problem.code == "internal" else None
            self._log.warning("request failed", method=request.method, path=path, status=problem.status, error=str(error), exc_info=trace)
        return render(problem, path)


def catching(refusals: Refusals, before: Callable[[web.Request], None], after: Callable[[web.Request], None]) -> Middleware:
    """The one layer around every handler: ``before`` may refuse the request, errors become answers, and ``after`` is called when the
    answer is known.
    """

    @web.middleware
    async def layer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            before(request)
            return await handler(request)
        except Exception as error:  # noqa: BLE001 — all of them
            return refusals.answer(request, error)
        finally:
            after(request)

    return layer
