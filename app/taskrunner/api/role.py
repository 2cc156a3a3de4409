"""Role 1 as a context manager: entering is listening, leaving is drained."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from taskrunner.api import page
from taskrunner.api.bodies import BATCH_BYTES
from taskrunner.api.creator import Creator
from taskrunner.api.errors import catching
from taskrunner.api.health import Health, Readiness
from taskrunner.api.requests import refuse_strangers
from taskrunner.api.tasks import Tasks
from taskrunner.api.waiting import Hub
from taskrunner.domain.errors import ConfigurationError
from taskrunner.settings import Settings
from taskrunner.store.tasks import Store

NEEDS_SCHEMA = ("/api/tasks", "/api/stats")
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Door:
    """Where the API listens."""

    url: str
    port: int


@asynccontextmanager
async def serve(settings: Settings, store: Store) -> AsyncIterator[Door]:
    """The API, listening. It may start before the schema or the database is there; until then it answers 503.

    Leaving it: no new connections, waits end early, requests in flight get ``settings.grace`` seconds, creates are committed.
    Raises ConfigurationError when it cannot listen there.
    """
    creator, hub, readiness = Creator(store), Hub(store), Readiness(store)
    application = _application(store, creator, hub, readiness)
    runner = web.AppRunner(application, access_log=None, auto_decompress=False, shutdown_timeout=settings.grace)
    await runner.setup()
    try:
        door = await _listen(runner, settings)
        async with asyncio.TaskGroup() as group:
            group.create_task(creator.run(), name="api: creator")
            loops = [group.create_task(hub.run(), name="api: waiting"), group.create_task(readiness.run(), name="api: readiness")]
            try:
                yield door
            finally:
                readiness.close("the service is stopping")
                hub.close()
                for loop in loops:
                    loop.cancel()
                await runner.cleanup()
                creator.close()
    finally:
        await runner.cleanup()


def _application(store: Store, creator: Creator, hub: Hub, readiness: Readiness) -> web.Application:
    def before(request: web.Request) -> None:
        refuse_strangers(request)
        if not readiness.open and request.path.startswith(NEEDS_SCHEMA):
            readiness.check()

    application = web.Application(middlewares=[catching(before)], client_max_size=BATCH_BYTES)
    application.add_routes(Tasks(store=store, creator=creator, hub=hub).routes())
    application.add_routes(Health(store=store, readiness=readiness).routes())
    application.add_routes(page.routes())
    return application


async def _listen(runner: web.AppRunner, settings: Settings) -> Door:
    host, port = settings.http_host, settings.http_port
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on HTTP_HOST {host}, HTTP_PORT {port}: {error.strerror or error}") from error
    port = runner.addresses[0][1]
    name = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 — compared, not bound
    return Door(url=f"http://{name}:{port}", port=port)
