"""Who may hold a connection to the door, and for how long without saying what it wants.

aiohttp waits for a request's head for as long as it comes in drops, and takes any number of connections.
"""

import asyncio
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server

from taskrunner.api.errors import Problem, render
from taskrunner.api.shortcut import Shortcut
from taskrunner.kit.sockets import watch_peer

log = structlog.get_logger()

HEAD = 7.0  # seconds from a connection's beginning, or from a head's first bytes, to the end of the head
IDLE = 75.0  # seconds between two requests: longer than reverse proxies wait
LINGER = 2.0  # seconds that a client has to hear a refusal while it still sends
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Connection(RequestHandler):
    """aiohttp's, with a deadline for heads."""

    __slots__ = ("_late",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether it waits for a request that is not, or not wholly, there."""
        return self._waiter is not None and not self._waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The clock ticks from the beginning."""
        self._expect_head()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """A head that is there stops the clock, a piece of one starts it."""
        super().data_received(data)
        if not self.idle:
            self._forget_head()
        elif data and self._late is None:
            self._expect_head()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 — aiohttp's signature
        """Go on where it was paused. aiohttp asks for it with each piece of a body that is read, and would wake its parser each time."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over."""
        self._forget_head()
        super().connection_lost(exc)

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what is no request; aiohttp would log a traceback for each."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        reason = " ".join((message or "").split())[:200]
        answer = render(Problem(status, "bad_request", f"this is not HTTP as it is spoken here: {reason}"), "/")
        answer.force_close()
        return answer

    def _expect_head(self) -> None:
        self._late = self._loop.call_later(HEAD, self.force_close)

    def _forget_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class Doorkeeper(Server):
    """Holds at most ``most`` connections. Where one more comes, the oldest that asks nothing makes room for it."""

    def __init__(self, most: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most = most
        self._told = False

    def __call__(self) -> RequestHandler:
        """A connection's protocol."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Let it in, if need be for another one."""
        super().connection_made(handler, transport)
        watch_peer(transport)
        if len(self._connections) <= self._most:
            return
        if not self._told:
            self._told = True
            log.warning("all connections are taken: those that ask nothing are closed for new ones", most=self._most)
        idle = next((one for one in self._connections if isinstance(one, Connection) and one.idle), None)
        if idle is not None:
            idle.force_close()
        else:
            transport.write(FULL)
            self._loop.call_soon(handler.force_close)  # aiohttp is about to start it


class Runner(web.AppRunner):
    """aiohttp's, with our doorkeeper, and with a short way for what it takes."""

    def __init__(self, application: web.Application, shortcut: Shortcut | None = None, *, most: int, **kwargs: Any) -> None:
        super().__init__(application, keepalive_timeout=IDLE, lingering_time=LINGER, auto_decompress=False, access_log=None, **kwargs)
        self._most = most
        self._shortcut = shortcut

    async def _make_server(self) -> Server:
        plain = await super()._make_server()
        shortcut, general = self._shortcut, plain.request_handler

        async def handle(request: Any) -> web.StreamResponse:
            response = None if shortcut is None else await shortcut.take(request)
            return response or await general(request)

        return Doorkeeper(self._most, handle, request_factory=plain.request_factory, **plain._kwargs)  # noqa: SLF001 — the rest of them
