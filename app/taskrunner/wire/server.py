"""A gRPC server as each of ours is: with health and reflection, and closed in bounded time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server

from taskrunner.domain.errors import ConfigurationError
from taskrunner.wire.codec import Codec
from taskrunner.wire.pb.google_proto_descriptor_pool import default_google_proto_descriptor_pool

CLOSE = 2.0  # seconds for connections to end after their handlers were cancelled


@asynccontextmanager
async def serving(service: Any, host: str, port: int, *, health: ServiceStatus, settings: str) -> AsyncIterator[str]:
    """Serve ``service`` beside gRPC health (as ``health`` says) and reflection; yields ``host:port``, with the port that was really taken.

    Leaving cancels the handlers that still run: say Goodbye before. Raises ConfigurationError, naming ``settings``, where it cannot listen.
    """
    services = [service, Health({service: [health]})]
    server = Server(ServerReflection.extend(services, pool=default_google_proto_descriptor_pool), codec=Codec())
    try:
        await server.start(host, port)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host}:{port} ({settings}): {error.strerror or error}") from None
    try:
        sockets = server._server.sockets  # type: ignore[union-attr]  # noqa: SLF001 — grpclib has no other way to tell the port
        yield f"{host}:{sockets[0].getsockname()[1]}"
    finally:
        server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE):
                await server.wait_closed()
