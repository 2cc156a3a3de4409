"""Where the schedulers are."""

import asyncio
import random
from collections.abc import Sequence
from typing import NamedTuple

from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from h2.exceptions import H2Error

from taskrunner.domain.errors import ConfigurationError

# What a broken or foreign peer can cause. uvloop says RuntimeError for a write to a transport that has just closed.
# AttributeError: a connection of grpclib that is closed while it shakes hands has lost its transport.
# ConfigurationError: certificates that are just being replaced; the worker's own server has seen good ones.
BROKEN = (
    OSError,
    EOFError,
    GRPCError,
    StreamTerminatedError,
    ProtocolError,
    H2Error,
    ValueError,
    AssertionError,
    RuntimeError,
    AttributeError,
    ConfigurationError,
)


class Place(NamedTuple):
    """One address of one scheduler, or of several behind it. ``name`` is how it was called before it was looked up."""

    host: str
    port: int
    name: str = ""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def find_places(addresses: Sequence[str]) -> list[Place]:
    """Every address behind ``addresses`` (host:port), in random order. Raises OSError when none can be found."""
    loop = asyncio.get_running_loop()
    found: dict[Place, None] = {}
    trouble: OSError | None = None
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            infos = await loop.getaddrinfo(host.strip("[]"), int(port), type=1)
        except OSError as error:
            trouble = error
            continue
        found |= {Place(str(info[4][0]), int(info[4][1]), host): None for info in infos}
    if not found:
        raise OSError(f"{', '.join(addresses)}: {trouble}")
    places = list(found)
    random.shuffle(places)
    return places


def said(error: BaseException) -> str:
    """What went wrong, for the log: the leaves of a group, each once."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(said(one) for one in error.exceptions))
    if isinstance(error, GRPCError):
        return error.message or error.status.name
    return str(error) or type(error).__name__
