"""Where traces go: a collector that keeps what it is sent by OTLP over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = ("", "internal", "server", "client", "producer", "consumer")


class Seen(NamedTuple):
    """One span."""

    name: str
    kind: str
    trace: str
    span: str
    parent: str
    words: dict[str, Any]
    failed: bool
    process: str


class Sink:
    """``url`` is for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Seen] = []
        self.resources: list[dict[str, Any]] = []
        self._bell = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for batch in message.resource_spans:
            resource = _words(batch.resource.attributes)
            self.resources.append(resource)
            self.spans += [_seen(span, resource) for scope in batch.scope_spans for span in scope.spans]
        self._bell.set()
        return web.Response()

    async def until(self, true: Callable[[list[Seen]], Any], seconds: float = 20) -> Any:
        """What ``true`` says of the spans once that is something."""
        async with asyncio.timeout(seconds):
            while not (found := true(self.spans)):
                self._bell.clear()
                await self._bell.wait()
        return found

    async def named(self, name: str, **words: Any) -> Seen:
        """The first span of that name with these words, once it is there."""

        def look(spans: list[Seen]) -> Seen | None:
            return next((span for span in spans if span.name == name and span.words.items() >= words.items()), None)

        found: Seen = await self.until(look)
        return found


@asynccontextmanager
async def open_sink() -> AsyncIterator[Sink]:
    sink = Sink()
    application = web.Application()
    application.router.add_post("/v1/traces", sink.take)
    runner = web.AppRunner(application, auto_decompress=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield sink
    finally:
        await runner.cleanup()


def _words(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def _seen(span: Any, resource: dict[str, Any]) -> Seen:
    return Seen(
        name=span.name,
        kind=KINDS[span.kind],
        trace=span.trace_id.hex(),
        span=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        words=_words(span.attributes),
        failed=span.status.code == 2,
        process=resource["service.instance.id"],
    )
