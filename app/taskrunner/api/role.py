"""Role 1 as a context manager: entering is listening, leaving is drained."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry

from taskrunner.api import page
from taskrunner.api.access import Gate
from taskrunner.api.bodies import BATCH_BYTES
from taskrunner.api.bulk import Bulk
from taskrunner.api.changing import Changing
from taskrunner.api.connections import Runner
from taskrunner.api.creator import Creator
from taskrunner.api.errors import Refusals, catching
from taskrunner.api.events import EventRoutes
from taskrunner.api.feed import Feed
from taskrunner.api.fleet import FleetRoutes
from taskrunner.api.health import Health, Readiness
from taskrunner.api.intake import INTAKE, Intake
from taskrunner.api.kept import Kept
from taskrunner.api.metrics import DatabaseMetrics, MetricsRoute, Requests
from taskrunner.api.openapi import described
from taskrunner.api.reading import Reader
from taskrunner.api.requests import refuse_strangers, refuse_torn
from taskrunner.api.routes import Route
from taskrunner.api.sessions import SessionRoutes
from taskrunner.api.shortcut import Shortcut
from taskrunner.api.stats import StatsRoutes
from taskrunner.api.tasks import Tasks
from taskrunner.api.tracing import tracing
from taskrunner.api.waiting import Hub
from taskrunner.api.work import Work
from taskrunner.domain.errors import ConfigurationError
from taskrunner.kit.loops import start
from taskrunner.kit.trace import Tracer
from taskrunner.settings import Settings
from taskrunner.store.bulk import Bulks
from taskrunner.store.events import SETUP as EVENTS
from taskrunner.store.events import Events
from taskrunner.store.fleet import Fleet
from taskrunner.store.gates import Gates
from taskrunner.store.pool import Line
from taskrunner.store.stats import Stats
from taskrunner.store.tasks import Store
from taskrunner.store.tokens import Tokens

WITHOUT_SCHEMA = {"/api/healthz", "/api/livez", "/api/readyz", "/api/openapi.json", *page.FILES}
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Door:
    """Where the API listens."""

    url: str
    port: int


@asynccontextmanager
async def serve(settings: Settings, store: Store, registry: CollectorRegistry | None = None) -> AsyncIterator[Door]:
    """The API, listening. It may start before the schema or the database is there; until then it answers 503.

    Leaving it: no new connections, waits end early, requests in flight get ``settings.grace`` seconds, creates are committed.
    Its metrics, and all that are in ``registry`` besides, are at ``/metrics``. Raises ConfigurationError when it cannot listen there.
    """
    rooms = Rooms(store, registry)
    await rooms.gate.refuse_exposure()
    runner = Runner(rooms.application(), rooms.shortcut(), most=settings.max_connections, shutdown_timeout=settings.grace)
    await runner.setup()
    try:
        door = await _listen(runner, settings)
        async with asyncio.TaskGroup() as group:
            start(group, {"api: creator": rooms.creator.run(), "api: reader": rooms.reader.run()})
            loops = rooms.start(group)
            try:
                await rooms.readiness.looked.wait()
                yield door
            finally:
                rooms.close()
                for loop in loops:
                    loop.cancel()
                await runner.cleanup()
                await rooms.work.close()
                rooms.creator.close()
                rooms.reader.close()
    finally:
        await runner.cleanup()


class Rooms:
    """All that stands behind the door."""

    def __init__(self, store: Store, registry: CollectorRegistry | None = None) -> None:
        self._store = store
        self._stats = Stats(store)
        self._backlog = Kept(self._stats.backlog)
        self._database = DatabaseMetrics(self._stats, self._backlog)
        self._requests = Requests()
        self._registry = registry or CollectorRegistry()
        self._registry.register(self._database)
        self._registry.register(self._requests)
        self.gate = Gate(Tokens(store.pool), store.settings)
        self.creator = Creator(store)
        self.work = Work(store)
        self.reader = Reader(store)
        self._refusals = Refusals()
        self._intake = Intake()
        self._hub = Hub(store)
        self.readiness = Readiness(store)
        self._bulk = Bulk(Bulks(store))
        self._feed = Feed(Events(Line(store.pool, setup=EVENTS)))

    def routes(self) -> list[Route]:
        """Everything that is served, but for the pages."""
        store = self._store
        return [
            *Tasks(store=store, creator=self.creator, reader=self.reader, hub=self._hub).routes(),
            *Changing(store=store).routes(),
            *self._bulk.routes(),
            *self.work.routes(),
            *FleetRoutes(Fleet(store), Gates(store)).routes(),
            *EventRoutes(self._feed, self.gate).routes(),
            *SessionRoutes(self.gate).routes(),
            *StatsRoutes(self._stats, self._backlog).routes(),
            *MetricsRoute(self._registry, self._database.refresh).routes(),
            *Health(store=store, readiness=self.readiness).routes(),
        ]

    def application(self) -> web.Application:
        """The routes, their description, and the pages."""
        traces = [tracing(Tracer(), but=WITHOUT_SCHEMA)] if self._store.settings.traces else []
        layer = catching(self._refusals, self._before, self._intake.release)
        application = web.Application(middlewares=[*traces, layer], client_max_size=BATCH_BYTES)
        application[INTAKE] = self._intake
        routes = self.routes()
        routes.append(described(routes))
        application.add_routes([route.definition(self._requests.counted(route, self.gate.guarded(route))) for route in routes])
        application.add_routes(page.routes())
        return application

    def shortcut(self) -> Shortcut | None:
        """The short way of creates; none where each request makes a span."""
        if self._store.settings.traces:
            return None
        return Shortcut(
            creator=self.creator,
            gate=self.gate,
            intake=self._intake,
            requests=self._requests,
            refusals=self._refusals,
            before=self._before,
        )

    def _before(self, request: web.Request) -> None:
        refuse_strangers(request)
        refuse_torn(request)
        if not self.readiness.open and request.path.startswith("/api/") and request.path not in WITHOUT_SCHEMA:
            self.readiness.check()

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start every loop but the creator's and the reader's, which end by themselves."""
        self._store.settled.append(self._hub.settled)
        loops = {
            "waiting": self._hub.run(),
            "readiness": self.readiness.run(),
            "bulk": self._bulk_when_ready(),
            "events": self._feed.run(),
        }
        return start(group, {f"api: {name}": loop for name, loop in loops.items()})

    async def _bulk_when_ready(self) -> None:
        await self.readiness.opened.wait()
        await self._bulk.run()

    def close(self) -> None:
        """Take no more calls, and let nobody wait."""
        self.readiness.close("the service is stopping")
        self._store.settled.remove(self._hub.settled)
        self._hub.close()
        self.gate.close()
        self._feed.close()
        self.work.stop()


async def _listen(runner: web.AppRunner, settings: Settings) -> Door:
    host, port = settings.http_host, settings.http_port
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on HTTP_HOST {host}, HTTP_PORT {port}: {error.strerror or error}") from error
    port = runner.addresses[0][1]
    name = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 — compared, not bound
    return Door(url=f"http://{name}:{port}", port=port)
