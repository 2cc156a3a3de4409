"""Spans for gRPC calls. A stream is one call: its span ends with it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpclib.client import Channel
from grpclib.events import RecvRequest, SendRequest, listen
from grpclib.server import Server, Stream

from taskrunner.kit.trace import Span, Tracer, traceparent_of

OURS = "/taskrunner."  # health checks and reflection are not worth a span


def trace_server(server: Server, tracer: Tracer) -> None:
    """A span for each call that ``server`` answers, below the caller's."""

    async def received(event: RecvRequest) -> None:
        serve, method = event.method_func, event.method_name
        parent = event.metadata.get("traceparent")

        async def answer(stream: Stream[object, object]) -> None:
            with tracer.span(method[1:], "server", _words(method), parent=parent if isinstance(parent, str) else None):
                await serve(stream)

        if method.startswith(OURS):
            event.method_func = answer

    listen(server, RecvRequest, received)


@asynccontextmanager
async def calling(channel: Channel, tracer: Tracer | None) -> AsyncIterator[None]:
    """A span for each call that begins on ``channel`` in the body; those that are still open at its end have ended with it."""
    if tracer is None:
        yield
        return
    spans: list[Span] = []

    async def sends(event: SendRequest) -> None:
        span = tracer.begin(event.method_name[1:], "client", _words(event.method_name))
        spans.append(span)
        if (traceparent := traceparent_of(span)) is not None:
            event.metadata["traceparent"] = traceparent

    listen(channel, SendRequest, sends)
    try:
        yield
    finally:
        for span in spans:
            span.end()


def _words(method: str) -> dict[str, str]:
    service, _, name = method[1:].partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
