"""A gRPC server as each of ours is: with health and reflection, and closed in bounded time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakSet

from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.protocol import H2Protocol
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server

from taskrunner.domain.errors import ConfigurationError
from taskrunner.wire.codec import Codec
from taskrunner.wire.pb.google_proto_descriptor_pool import default_google_proto_descriptor_pool

CLOSE = 2.0  # seconds for connections to end after their handlers were cancelled


class _Server(Server):
    """grpclib closes no connection of its own accord, and a client would not notice that its server is gone. This one hangs up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: WeakSet[H2Protocol] = WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        connection = super()._protocol_factory()
        self._connections.add(connection)
        return connection

    def hang_up(self) -> None:
        """Close every connection."""
        for connection in list(self._connections):
            if hasattr(connection, "processor"):  # it is connected
                connection.processor.close()


@asynccontextmanager
async def serving(service: Any, host: str, port: int, *, health: ServiceStatus, settings: str) -> AsyncIterator[str]:
    """Serve ``service`` beside gRPC health (as ``health`` says) and reflection; yields ``host:port``, with the port that was really taken.

    Leaving cancels the handlers that still run: say Goodbye before. Raises ConfigurationError, naming ``settings``, where it cannot listen.
    """
    services = [service, Health({service: [health]})]
    server = _Server(ServerReflection.extend(services, pool=default_google_proto_descriptor_pool), codec=Codec())
    try:
        await server.start(host, port)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port} ({settings}): {error.strerror or error}") from None
    try:
        sockets = server._server.sockets  # type: ignore[union-attr]  # noqa: SLF001 — grpclib has no other way to tell the port
        yield f"{host}:{sockets[0].getsockname()[1]}"
    finally:
        server.close()
        server.hang_up()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE):
                await server.wait_closed()
