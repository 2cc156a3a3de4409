"""The trace that a request is in: a task that is made there belongs to it."""

from collections.abc import Container, Sequence
from dataclasses import replace

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from taskrunner.domain.task import NewTask
from taskrunner.kit.trace import TRACEPARENT, Tracer, current

HEADER = "traceparent"


def trace_of(request: web.Request) -> str | None:
    """The W3C traceparent of our span for ``request``, or, where we make none, of the caller's."""
    found = current() or request.headers.get(HEADER)
    return found if found is not None and TRACEPARENT.fullmatch(found) else None


def in_trace(tasks: Sequence[NewTask], trace: str | None) -> Sequence[NewTask]:
    """``tasks``, those without a trace of their own in ``trace``."""
    if trace is None:
        return tasks
    return [task if task.traceparent else replace(task, traceparent=trace) for task in tasks]


def tracing(tracer: Tracer, *, but: Container[str]) -> Middleware:
    """A span round every request, but for those to the paths ``but``, which machines ask every few seconds."""

    @web.middleware
    async def layer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in but:
            return await handler(request)
        resource = request.match_info.route.resource
        route = "" if resource is None else resource.canonical
        words = {"http.request.method": request.method, "url.path": request.path, "url.scheme": request.scheme, "http.route": route}
        name = f"{request.method} {route}".strip()
        with tracer.span(name, "server", words, parent=request.headers.get(HEADER)) as span:
            response = await handler(request)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 500:
                tracer.fail(span, str(response.status))
            return response

    return layer
