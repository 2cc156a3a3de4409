"""Reads bodies: not slower than a bound, not larger, and not more of them at once than the process has memory for."""

import asyncio
from typing import Final

from aiohttp import web

from taskrunner.api.errors import Problem
from taskrunner.domain.errors import Unavailable

MOST = 64 << 20  # bytes of bodies whose requests are not answered yet
PATIENCE = 7.0  # seconds
LEAST = 4 << 10  # bytes that have to come in that time, unless the body ends before


class Intake:
    """The bytes of bodies that are being worked on."""

    def __init__(self) -> None:
        self._held = 0

    async def read(self, request: web.Request, most: int) -> bytes:
        """The body. Raises Problem for one that is larger than ``most`` or too slow, Unavailable when there are too many at once."""
        said = request.content_length or 0
        if said > most:
            raise _too_large(most)
        self._take(request, said)
        content = request.content
        body = request.get(BODY) or (content.read_nowait() if content.is_eof() else await self._in_time(request, most, said))
        if len(body) > most:
            raise _too_large(most)
        return body

    def release(self, request: web.Request) -> None:
        """The request is answered."""
        self.let_go(request.get(HELD, 0))

    def hold(self, size: int) -> bool:
        """Count ``size`` bytes more, if there is room for them; whoever holds them must :meth:`let_go`."""
        if self._held + size > MOST:
            return False
        self._held += size
        return True

    def let_go(self, size: int) -> None:
        """Count them no more."""
        self._held -= size

    def _take(self, request: web.Request, size: int) -> None:
        if not self.hold(size):
            raise Unavailable("too much is being taken in at this moment: ask again later")
        request[HELD] = request.get(HELD, 0) + size

    async def _in_time(self, request: web.Request, most: int, said: int) -> bytes:
        body = bytearray()
        wanted = 0
        ended = False
        while not ended:
            wanted += LEAST
            try:
                async with asyncio.timeout(PATIENCE):
                    while len(body) < wanted and not ended:
                        block = await request.content.readany()
                        ended = not block
                        body += block
                        if len(body) > most:
                            raise _too_large(most)
                        if not said:
                            self._take(request, len(block))
            except TimeoutError:
                raise Problem(408, "too_slow", f"the body came too slowly: send at least {LEAST} bytes in {PATIENCE:.0f} seconds") from None
        return bytes(body)


INTAKE: Final = web.AppKey("INTAKE", Intake)
HELD: Final = web.RequestKey("HELD", int)
BODY: Final = web.RequestKey("BODY", bytes)  # of a request that somebody has read already


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"the body must be at most {most >> 20} MiB")
