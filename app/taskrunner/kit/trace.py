"""Traces by OpenTelemetry, for those who ask for them and have its packages. For all others nothing is imported and nothing is done."""

import asyncio
import os
import re
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from typing import Any, Literal, Protocol

TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
Kind = Literal["server", "client", "producer", "consumer", "internal"]
Words = Mapping[str, str | int | float | bool]
CLOSE = 3.0  # seconds that the last spans have to be sent


class Span(Protocol):
    """What we use of OpenTelemetry's, which need not be there."""

    def set_attribute(self, key: str, value: str | float, /) -> None:
        """Say more."""

    def set_status(self, status: Any, /) -> None:
        """Say how it ended."""

    def get_span_context(self) -> Any:
        """How it is named."""

    def end(self) -> None:
        """It is over."""


def current() -> str | None:
    """The W3C traceparent of the span that the caller is in. A program that has not imported OpenTelemetry is in none."""
    api = sys.modules.get("opentelemetry.trace")
    return None if api is None else traceparent_of(api.get_current_span())


class Tracer:
    """Makes spans, with the provider that :func:`exporting` or the program around us has set. Raises ImportError without the packages.

    What a span says of an error is its type. Its words may hold payloads, and traces have readers of their own.
    """

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._api = trace
        self._nowhere = Context()
        self._read = TraceContextTextMapPropagator().extract  # whatever the program's own propagators are: it is our column
        self._tracer = trace.get_tracer("taskrunner", version("taskrunner"))

    @contextmanager
    def span(
        self, name: str, kind: Kind, words: Words, *, parent: str | None = None, calm: tuple[type[BaseException], ...] = ()
    ) -> Iterator[Span]:
        """A span round the body, below ``parent`` (a traceparent) or the first of its trace, and the current one within.

        Whatever leaves the body is an error, unless it is one of ``calm``.
        """
        span: Any = self.begin(name, kind, words, parent=parent)
        with self._api.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                if not isinstance(error, calm):
                    self.fail(span, type(error).__qualname__)
                raise

    def begin(self, name: str, kind: Kind, words: Words, *, parent: str | None = None) -> Span:
        """A span that the caller has to end, and that is not the current one."""
        above = self._context(parent)
        return self._tracer.start_span(name, above, self._api.SpanKind[kind.upper()], dict(words))

    def note(self, name: str, words: Words, *, began: int, alone: bool, error: BaseException | None = None) -> None:
        """Something that began at ``began`` (``time.time_ns``) and is over, below the current span. ``alone``: also where there is none."""
        above = self._api.get_current_span()
        if not (above.is_recording() or (alone and not above.get_span_context().is_valid)):
            return
        span = self._tracer.start_span(name, kind=self._api.SpanKind.CLIENT, attributes=dict(words), start_time=began)
        if error is not None:
            self.fail(span, type(error).__qualname__)
        span.end()

    def fail(self, span: Span, kind: str) -> None:
        """Mark the span as one that went wrong."""
        span.set_attribute("error.type", kind)
        span.set_status(self._api.StatusCode.ERROR)

    def _context(self, parent: str | None) -> Any:
        """The context below ``parent``; of one that cannot be read, an empty one."""
        return self._nowhere if parent is None else self._read({"traceparent": parent}, self._nowhere)


def traceparent_of(span: Span) -> str | None:
    """The W3C traceparent that names ``span``; None for one that is none."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}" if context.is_valid else None


@asynccontextmanager
async def exporting() -> AsyncIterator[None]:
    """See :func:`start_exporting`; what is not sent by the end is sent then, within ``CLOSE`` seconds."""
    provider = start_exporting()
    try:
        yield
    finally:
        if provider is not None:
            await _closed(provider)


async def _closed(provider: Any) -> None:
    """The end of ``provider``. A thread of its own sees to it, for which nobody waits when the collector hangs."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def close() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # the loop is closed: it took too long
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=close, name="last spans", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE):
            await done.wait()


def start_exporting(*, delay_ms: int | None = None) -> Any:
    """Send the spans of this process by OTLP over HTTP, as the variables ``OTEL_…`` say, at most ``delay_ms`` after their end.

    Returns the provider, or None where the program has set one of its own, which then does the sending. Raises ImportError without the
    packages.
    """
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {} if named else {"service.name": "taskrunner"}
    who = {"service.version": version("taskrunner"), "service.instance.id": f"{socket.gethostname()}:{os.getpid()}", **own}
    provider = TracerProvider(resource=Resource.create(who), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=delay_ms))
    trace.set_tracer_provider(provider)
    return provider
