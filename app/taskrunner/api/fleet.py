"""Queues, types and workers: what the dashboard shows, for everyone."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Literal, cast
from uuid import UUID

from aiohttp import web

from taskrunner.api import shapes
from taskrunner.api.documents import answer, moment
from taskrunner.api.errors import Problem, bad_parameter
from taskrunner.api.filters import WORDS, Word
from taskrunner.api.requests import path_id
from taskrunner.api.routes import CONFLICT, Answer, Error, Parameter, Route
from taskrunner.domain.access import Scope as AccessScope
from taskrunner.domain.errors import Conflict
from taskrunner.store.fleet import Fleet, Lot, Scope, WorkerSession
from taskrunner.store.gates import Gates

NAME = Parameter("name", Word, "its name", "path", "default")
SESSION = Parameter("session", UUID, "the session", "path", "01a20ca8-aabc-7a76-8a58-f035ed8d43d5")
NO_SESSION = Error(404, "not_found", "no such worker session: it never was, or died more than an hour ago")
PATHS: dict[Scope, str] = {"queue": "queues", "type": "types"}


class FleetRoutes:
    """Handlers of ``/api/queues``, ``/api/types`` and ``/api/workers``."""

    def __init__(self, fleet: Fleet, gates: Gates) -> None:
        self._fleet = fleet
        self._gates = gates
        self._counts = {scope: Shared(self._count(scope)) for scope in PATHS}

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        return [
            *self._lots("queue"),
            *self._lots("type"),
            Route(
                method="GET",
                path="/api/workers",
                handler=self.workers,
                group="workers",
                scope=AccessScope.READ,
                answers={200: Answer("the sessions", shapes.Workers)},
            ),
            Route(
                method="POST",
                path="/api/workers/{session}/drain",
                handler=self.drain,
                group="workers",
                scope=AccessScope.ADMIN,
                parameters=(SESSION,),
                answers={202: Answer("the worker is told with its next beat", shapes.Worker)},
                errors=(NO_SESSION, CONFLICT),
            ),
        ]

    def _lots(self, scope: Scope) -> list[Route]:
        word, path = scope, f"/api/{PATHS[scope]}"
        counted = f"All {word}s: how many tasks are ready, scheduled and running, how long the oldest ready one has waited, and pauses."
        return [
            Route(
                method="GET",
                path=path,
                handler=self._show(scope),
                group=PATHS[scope],
                scope=AccessScope.READ,
                answers={200: Answer(f"the {word}s", shapes.Lots)},
                about=counted,
            ),
            *(
                Route(
                    method="POST",
                    path=f"{path}/{{name}}/{verb}",
                    handler=self._turn(scope, paused=verb == "pause"),
                    group=PATHS[scope],
                    scope=AccessScope.ADMIN,
                    parameters=(NAME,),
                    answers={200: Answer(f"the {word} is {verb}d", shapes.Gate)},
                    about=about,
                )
                for verb, about in (
                    (
                        "pause",
                        f"Claim no more tasks of this {word}; what runs goes on. It holds until it is resumed, and survives restarts.",
                    ),
                    ("resume", f"Go on with this {word}."),
                )
            ),
        ]

    def _show(self, scope: Scope) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def show(_: web.Request) -> web.Response:
            return answer({"items": [asdict(lot) for lot in await self._counts[scope].get()]})

        return show

    def _count(self, scope: Scope) -> Callable[[], Awaitable[list[Lot]]]:
        return lambda: self._fleet.lots(scope)

    def _turn(self, scope: Scope, *, paused: bool) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def turn(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            if not 1 <= len(name) <= 200 or "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
                raise bad_parameter("name", WORDS)
            await (self._gates.close if paused else self._gates.open)(scope, name)
            return answer({"name": name, "paused": paused})

        return turn

    async def workers(self, _: web.Request) -> web.Response:
        """Worker sessions: those that live, and those that died within the last hour; newest first."""
        return answer({"items": [_worker(session) for session in await self._fleet.sessions()]})

    async def drain(self, request: web.Request) -> web.Response:
        """Ask a worker to take nothing more, to finish what runs, and to end, as SIGTERM does."""
        session = path_id(request, "a session", "session")
        told = await self._fleet.drain(session)
        found = await self._fleet.sessions(session)
        if not found:
            raise Problem(404, NO_SESSION.code, "there is no worker session with this id: it never was, or died more than an hour ago")
        if not told:
            raise Conflict("the session is dead already")
        return answer(_worker(found[0]), status=202)


def _worker(session: WorkerSession) -> shapes.Worker:
    return {
        "session": session.session,
        "name": session.name,
        "version": session.version,
        "address": session.address,
        "status": cast("Literal['LIVE', 'DRAINING', 'DEAD']", session.status),
        "task_types": session.task_types,
        "queues": session.queues,
        "slots": session.slots,
        "in_flight": session.in_flight,
        "started_at": moment(session.started_at),
        "last_beat_age": session.last_beat_age,
        "lag": session.lag,
    }


class Shared:
    """An answer that costs as much as there are tasks: asked for once, however many want it at the same time."""

    def __init__(self, ask: Callable[[], Awaitable[Any]]) -> None:
        self._ask = ask
        self._asking: asyncio.Future[Any] | None = None

    async def get(self) -> Any:
        """The answer. Whoever comes while it is being found shares it."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._done)
        return await asyncio.shield(self._asking)

    def _done(self, _: asyncio.Future[Any]) -> None:
        self._asking = None
