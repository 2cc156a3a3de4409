"""A webhook is a step of its task's trace: the receiver is told."""

import pytest
from aiohttp import web
from handlers.sinks import Run, Serve, make_context

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def show(request: web.Request) -> web.Response:
    return web.Response(text=request.headers.get("traceparent", "none"))


@pytest.mark.parametrize(
    ("known", "headers", "sent"),
    [(TRACE, {}, TRACE), ("", {}, "none"), ("é" * 55, {}, "none"), (TRACE, {"traceparent": "theirs"}, "theirs")],
)
async def test_the_tasks_trace_goes_on(run: Run, serve: Serve, known: str, headers: dict[str, str], sent: str) -> None:
    """Unless it is none, or the payload has one."""
    ctx = make_context(traceparent=known.encode("ascii", "replace"))
    assert (await run("webhook", {"url": await serve(show), "headers": headers}, ctx))["body"] == sent
