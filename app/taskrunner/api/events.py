"""``GET /api/events``: what happens to tasks, as server-sent events."""

import asyncio
from contextlib import suppress

from aiohttp import hdrs, web

from taskrunner.api.access import Gate, caller_of
from taskrunner.api.errors import Problem, bad_parameter
from taskrunner.api.feed import Feed, Listener, place_of
from taskrunner.api.filters import EventQuery, parameters_of, read_query
from taskrunner.api.routes import Answer, Parameter, Route
from taskrunner.domain.access import Scope
from taskrunner.domain.errors import Unavailable
from taskrunner.store.events import Place

HEARTBEAT = 10.0  # seconds between two signs of life
SLOW = 20.0  # seconds that a client may take to take something
KIND = "text/event-stream"
HEADERS = {hdrs.CONTENT_TYPE: KIND, hdrs.CACHE_CONTROL: "no-cache", "X-Accel-Buffering": "no"}
LAST = Parameter("Last-Event-ID", str, "the id of the last event that arrived: the finished tasks since then are sent first", "header")


class EventRoutes:
    """The handler of ``/api/events``."""

    def __init__(self, feed: Feed, gate: Gate) -> None:
        self._feed = feed
        self._gate = gate

    def routes(self) -> list[Route]:
        """The path and what is to be said about it."""
        return [
            Route(
                method="GET",
                path="/api/events",
                handler=self.stream,
                group="events",
                scope=Scope.READ,
                parameters=(*parameters_of(EventQuery), LAST),
                answers={200: Answer("events, for as long as you listen", str, kind=KIND)},
            )
        ]

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """What happens to tasks, as server-sent events.

        `finished` events are complete and in order, and have an id: after a break a client goes on from the last one, with duplicates
        possible. `live` events are samples of tasks that wait or run, once a second. A comment comes at least every 15 seconds.
        A client that does not keep up is disconnected.
        """
        query = read_query(EventQuery, request.query)
        last = request.headers.get("Last-Event-ID")
        since = place_of(last) if last else None
        if last and since is None:
            raise bad_parameter("Last-Event-ID", "must be the id of an event, unchanged")
        response = web.StreamResponse(headers=HEADERS)
        if request.method == hdrs.METH_HEAD:
            return response
        payloads = Scope.PAYLOADS in caller_of(request).scopes
        async with self._feed.listening(query, payloads=payloads) as (listener, place):
            await response.prepare(request)
            # The client left, or cannot keep up; or its token was revoked, or nobody can tell.
            with suppress(ConnectionError, TimeoutError, Problem, Unavailable):
                await _write(response, b"retry: 2000\n\n")
                await self._send(request, response, listener, (since, place))
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, listener: Listener, places: tuple[Place | None, Place]
    ) -> None:
        since, place = places
        if since is not None:
            async for data in self._feed.missed(listener, since, place):
                await _write(response, data)
        while not listener.over:
            data = await listener.next(HEARTBEAT)
            await self._gate.admit(request, Scope.READ)  # the token may have been revoked meanwhile
            await _write(response, data or b": still here\n\n")


async def _write(response: web.StreamResponse, data: bytes) -> None:
    if data:
        async with asyncio.timeout(SLOW):
            await response.write(data)
