"""The worker's own gRPC server: health, reflection, describe and drain."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server

from taskrunner.domain.errors import ConfigurationError
from taskrunner.wire.pb.google_proto_descriptor_pool import default_google_proto_descriptor_pool
from taskrunner.wire.pb.taskrunner.v1 import DescribeReply, DescribeRequest, DrainReply, DrainRequest, WorkerBase


class WorkerService(WorkerBase):
    """``describe`` is asked for each Describe; Drain ends the process as SIGTERM does, whoever handles that."""

    def __init__(self, describe: Callable[[], DescribeReply]) -> None:
        self._describe = describe

    async def describe(self, message: DescribeRequest) -> DescribeReply:  # noqa: ARG002 — it has no fields yet
        """What the worker is and holds."""
        return self._describe()

    async def drain(self, message: DrainRequest) -> DrainReply:  # noqa: ARG002 — it has no fields yet
        """Stop taking, finish what runs, end."""
        now = self._describe()
        os.kill(os.getpid(), signal.SIGTERM)
        return DrainReply(running=now.running, waiting=now.waiting)


class Door:
    """The server and its health."""

    def __init__(self, describe: Callable[[], DescribeReply]) -> None:
        service = WorkerService(describe)
        self._status = ServiceStatus()
        self._status.set(False)
        services: list[Any] = [service, Health({OVERALL: [self._status], service: [self._status]})]
        self._server = Server(ServerReflection.extend(services, pool=default_google_proto_descriptor_pool))

    async def open(self, sock: socket.socket) -> None:
        """Serve on a listening socket."""
        await self._server.start(sock=sock)

    def set_serving(self, serving: bool) -> None:  # noqa: FBT001 — a state, not a choice
        """What health says."""
        self._status.set(serving)

    async def close(self) -> None:
        """Stop listening; calls under way are cut."""
        self._status.set(False)
        self._server.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await self._server.wait_closed()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; a port of 0 takes any free one. Raises ConfigurationError for an address that cannot be had."""
    try:
        family, _, _, _, where = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(where[:2], family=family)
    except OSError as error:
        raise ConfigurationError(f"WORKER_HOST and WORKER_PORT: the worker cannot listen on {host}:{port}: {error}") from error


def package_version() -> str:
    """The version of this package."""
    return version("taskrunner")
