"""A gRPC server as each of ours is: with health and reflection, limits, TLS where the settings say so, and closed in bounded time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.protocol import H2Protocol
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server

from taskrunner.domain.errors import ConfigurationError
from taskrunner.kit.trace import Tracer
from taskrunner.settings import Settings, env_name
from taskrunner.wire.codec import Codec
from taskrunner.wire.limits import QUIET, ServerProtocol
from taskrunner.wire.pb.google_proto_descriptor_pool import default_google_proto_descriptor_pool
from taskrunner.wire.tls import Files, Renewed
from taskrunner.wire.tracing import trace_server

CLOSE = 2.0  # seconds for connections to end after their handlers were cancelled
HANDSHAKE = 5.0  # seconds that a client has for TLS
BACKLOG = 1024


class _Server(Server):
    """Holds at most ``most`` connections. grpclib closes none of its own accord, and a client would not notice that its server is gone:
    this one hangs up.
    """

    def __init__(self, services: list[Any], *, most: int, files: Files | None) -> None:
        super().__init__(services, codec=Codec(), config=QUIET)
        self._h2_config.validate_inbound_headers = True  # grpclib's handler logs a traceback for a request without a method
        self._most = most
        self._tls = None if files is None else Renewed(files)
        self._open: set[ServerProtocol] = set()

    async def listen(self, host: str, port: int) -> str:
        """Start. Returns ``host:port``, with the port that was really taken. Raises OSError."""
        tls = None if self._tls is None else self._tls.context
        patience = None if tls is None else HANDSHAKE
        make = self._protocol_factory
        server = await self._loop.create_server(make, host, port, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=patience)
        self._server, self._server_closed_fut = server, self._loop.create_future()
        return f"{host}:{server.sockets[0].getsockname()[1]}"

    def _protocol_factory(self) -> H2Protocol:
        if self._tls is not None:
            self._tls.look()
        plain = super()._protocol_factory()
        return ServerProtocol(plain.handler, plain.config, plain.h2_config, made=self._made, lost=self._open.discard)

    def _made(self, connection: ServerProtocol) -> bool:
        if len(self._open) >= self._most:
            return False
        self._open.add(connection)
        return True

    def hang_up(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            connection.processor.close()


@asynccontextmanager
async def serving(service: Any, settings: Settings, role: Literal["scheduler", "worker"], *, health: ServiceStatus) -> AsyncIterator[str]:
    """Serve ``service`` where ``settings`` say that the ``role`` listens, beside gRPC health (as ``health`` says) and reflection; yields
    ``host:port``, with the port that was really taken.

    Leaving cancels the handlers that still run: say Goodbye before. Raises ConfigurationError where it cannot listen, and for files of TLS
    that cannot be used.
    """
    host, port = getattr(settings, f"{role}_host"), getattr(settings, f"{role}_port")
    services = [service, Health({service: [health]})]
    services = ServerReflection.extend(services, pool=default_google_proto_descriptor_pool)
    server = _Server(services, most=settings.max_connections, files=Files.of(settings))
    if settings.traces:
        trace_server(server, Tracer())
    try:
        address = await server.listen(host, port)
    except OSError as error:
        names = f"{env_name(f'{role}_host')}, {env_name(f'{role}_port')}"
        raise ConfigurationError(f"cannot listen on {host}:{port} ({names}): {error.strerror or error}") from None
    try:
        yield address
    finally:
        server.close()
        server.hang_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE):
                await server.wait_closed()
