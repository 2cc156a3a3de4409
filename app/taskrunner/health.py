"""``taskrunner health``: asks the roles of a running process how they are, over the ports that its settings name."""

import asyncio
import http.client
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from taskrunner.domain.errors import ConfigurationError
from taskrunner.settings import Role, Settings, env_name
from taskrunner.wire.channel import open_channel

PATIENCE = 3.0
BROKEN = (OSError, http.client.HTTPException, GRPCError, StreamTerminatedError, ConfigurationError)
# An address that stands for all of a machine's is asked on the machine itself.
NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 — read from the settings, not listened on


async def troubles(settings: Settings) -> list[str]:
    """One sentence for each role of ``settings`` that does not answer, or answers that it is not ready."""
    found = [await _trouble(role, settings) for role in settings.roles]
    return [trouble for trouble in found if trouble is not None]


async def _trouble(role: Role, settings: Settings) -> str | None:
    name = "http" if role == "api" else role
    host, port = getattr(settings, f"{name}_host"), getattr(settings, f"{name}_port")
    if port == 0:
        return f"the {role} cannot be asked: {env_name(f'{name}_port')} is 0, so only its own process knows the port"
    host = NEAR.get(host, host)
    try:
        said = await asyncio.to_thread(_ask_http, host, port) if role == "api" else await _ask_grpc(host, port, settings)
    except BROKEN as error:
        said = _words(error)
    return said and f"the {role} on {host}:{port} is not ready: {said}"


async def schedulers_behind(addresses: Sequence[str], settings: Settings) -> dict[str, str | None]:
    """What is wrong with each scheduler behind these names (host:port); None with one that serves."""
    found: dict[str, str | None] = {}
    for address in addresses:
        name, _, port = address.rpartition(":")
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(name.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            found[address] = _words(error)
            continue
        hosts = dict.fromkeys(str(info[4][0]) for info in infos)
        said = {host: await _scheduler(host, int(port), settings, name) for host in hosts}
        if None in said.values() and all(ip_address(host.partition("%")[0]).is_loopback for host in hosts):
            found[address] = None  # localhost has two addresses, and a server listens on one of them
        else:
            found |= {address if len(said) == 1 else f"{address} ({host})": trouble for host, trouble in said.items()}
    return found


async def _scheduler(host: str, port: int, settings: Settings, name: str) -> str | None:
    try:
        return await _ask_grpc(host, port, settings, name=name)
    except BROKEN as error:
        return _words(error)


def _words(error: Exception) -> str:
    return str(error) or f"no answer within {PATIENCE:g} seconds"


def _ask_http(host: str, port: int) -> str | None:
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return None if answer.status == http.client.OK else f"HTTP {answer.status} {answer.read(500).decode(errors='replace')}"
    finally:
        connection.close()


async def _ask_grpc(host: str, port: int, settings: Settings, *, name: str | None = None) -> str | None:
    async with open_channel(host, port, settings, name=name) as channel:
        answer = await HealthStub(channel).Check(HealthCheckRequest(), timeout=PATIENCE)
    status = HealthCheckResponse.ServingStatus.Name(answer.status)
    return None if status == "SERVING" else status
