"""``GET /metrics`` for processes without the api role: so little HTTP that a worker needs no HTTP server for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from taskrunner.domain.errors import ConfigurationError
from taskrunner.kit.metrics import rendered

PATIENCE = 5.0  # seconds for a request to come, and for its answer to be taken
LONGEST = 16 << 10  # bytes of a request's head
MOST = 20  # connections at once


@asynccontextmanager
async def exposing(registry: CollectorRegistry, host: str, port: int) -> AsyncIterator[str]:
    """Serve the metrics, one request a connection. Yields their address. Raises ConfigurationError where it cannot listen."""
    exposition = _Exposition(registry)
    try:
        server = await asyncio.start_server(exposition.serve, host, port, limit=LONGEST)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on HTTP_HOST {host}, TASKRUNNER_METRICS_PORT {port}: {error.strerror or error}") from error
    try:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}/metrics"
    finally:
        server.close()
        await exposition.close()


class _Exposition:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if len(self._open) <= MOST:
                async with asyncio.timeout(PATIENCE):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever that was is no scraper
        finally:
            self._open.discard(writer)
            writer.close()

    async def close(self) -> None:
        """Hang up."""
        while self._open:
            for writer in self._open:
                writer.transport.abort()
            await asyncio.sleep(0.01)

    def _answer(self, head: str) -> bytes:
        line, *headers = head.split("\r\n")
        method, _, rest = line.partition(" ")
        if method not in ("GET", "HEAD"):
            return _response("405 Method Not Allowed", b"this address answers GET\n", "text/plain")
        if rest.partition(" ")[0].partition("?")[0] != "/metrics":
            return _response("404 Not Found", b"the metrics are at /metrics\n", "text/plain")
        accept = next((value.strip() for name, _, value in (header.partition(":") for header in headers) if name.lower() == "accept"), "")
        body, kind = rendered(self._registry, accept)
        return _response("200 OK", body, kind, bare=method == "HEAD")


def _response(status: str, body: bytes, kind: str, *, bare: bool = False) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + (b"" if bare else body)
