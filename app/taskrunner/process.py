"""One process: opens the rooms of its roles in order, waits, and closes them in reverse.

Rooms are imported when they are opened, so that a worker's memory holds no psycopg and no HTTP server, and a scheduler's no HTTP server.
"""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import structlog

from taskrunner.domain.access import is_local
from taskrunner.domain.errors import ConfigurationError
from taskrunner.kit.log import is_text
from taskrunner.kit.signals import stop_on_signals, unless
from taskrunner.kit.sockets import allow_files
from taskrunner.settings import Settings, env_name

log = structlog.get_logger()

# What closing takes beside the tasks' own time: streams, pools, the embedded PostgreSQL.
MARGIN = 25.0
# What a process opens beside the connections to its servers: modules, the pool, children, the handlers' own.
FILES = 500
# Who speaks to the gRPC server of a role.
PEER = {"scheduler": "worker", "worker": "operator"}


class Database(NamedTuple):
    """Where the tables are. Only an embedded one has ``shown``, the way there by hand, and ``mail_dir``, where mail goes without SMTP."""

    dsn: str
    shown: str | None = None
    mail_dir: Path | None = None


async def run(settings: Settings) -> None:
    """Open the rooms of ``settings.roles``, serve until SIGTERM or SIGINT, drain, return. For the main thread of a process that then ends.

    Whatever ends a room early closes the others in the same order and is raised, mostly in an ExceptionGroup. Closing is bounded: when it
    takes longer than the tasks' grace and a little more, the process exits with 1 and leaves the rest to the leases.
    """
    allow_files(len(settings.roles) * settings.max_connections + FILES)
    async with stop_on_signals() as stop, AsyncExitStack() as rooms:
        try:
            async with unless(stop):
                _announce(await _open(settings, rooms), settings)
            spare_the_collector()
            await stop.wait()
        finally:
            _leave_within(settings.grace + MARGIN)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[dict[str, str]]:
    """The rooms of ``settings.roles`` in a process that is somebody else's: where each one is. No signals, no bound on closing."""
    async with AsyncExitStack() as rooms:
        yield await _open(settings, rooms)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of uvloop where that is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The database that ``DB_DSN`` names, or an embedded one that stops with the last process that uses it."""
    if settings.db_dsn is not None:
        yield Database(settings.db_dsn.get_secret_value())
        return
    from taskrunner.store.embedded import embedded_postgres

    async with embedded_postgres(settings.data_dir) as server:
        yield Database(server.dsn, f"embedded PostgreSQL in {server.data_dir}; look inside with: {server.psql}", settings.data_dir / "mail")


async def _open(settings: Settings, rooms: AsyncExitStack) -> dict[str, str]:
    """Open the rooms into ``rooms``: the store first, the door last. Returns where each one is."""
    _refuse_exposure(settings)
    enter, where, metered = rooms.enter_async_context, dict[str, str](), list[_Metered]()
    if settings.traces:
        await enter(_traces())
    store, mail_dir, schedulers = None, None, settings.scheduler_address
    if {"api", "scheduler"} & set(settings.roles):
        from taskrunner.store.tasks import open_store

        found = await enter(database(settings))
        store, mail_dir = await enter(open_store(found.dsn, settings)), found.mail_dir
        where |= {"database": found.shown} if found.shown else {}
        metered.append(store)
    if store is not None and "scheduler" in settings.roles:
        from taskrunner.scheduler import role as scheduler

        office = await enter(scheduler.serve(settings, store))
        where["scheduler"], schedulers = office.address, schedulers or (office.address,)
        metered.append(office)
    if "worker" in settings.roles:
        from taskrunner.worker import role as worker

        schedulers = schedulers or (f"localhost:{settings.scheduler_port}",)
        room = await enter(worker.serve(settings, schedulers, mail_dir))
        metered.append(room)
        where["worker"] = f"{room.address}, with {settings.slots} slots for tasks from {', '.join(schedulers)}"
    registry = await _registry(settings, rooms, metered)
    if store is not None and "api" in settings.roles:
        from taskrunner.api import role as api

        where["api"] = (await enter(api.serve(settings, store, registry))).url
    elif registry is not None:
        from taskrunner.kit.exposition import exposing

        where["metrics"] = await enter(exposing(registry, settings.http_host, settings.metrics_port))
    return where


class _Metered(Protocol):
    def collector(self) -> Any:
        """What the room counts, as metrics."""


async def _registry(settings: Settings, rooms: AsyncExitStack, metered: Sequence[_Metered]) -> Any:
    """The metrics of these rooms and of the loop, where somebody can ask for them; else None, and nothing of it is imported."""
    if "api" not in settings.roles and not settings.metrics_port:
        return None
    from taskrunner.kit.metrics import new_registry, watched

    registry = new_registry(version=version("taskrunner"), roles=",".join(settings.roles))
    for room in metered:
        registry.register(room.collector())
    await rooms.enter_async_context(watched(registry, "main"))
    return registry


def _refuse_exposure(settings: Settings) -> None:
    """Raises ConfigurationError where other machines can reach a gRPC server that does not ask who they are. The API sees to itself."""
    for role, name in (("scheduler", "scheduler_host"), ("worker", "worker_host")):
        host = getattr(settings, name)
        if role in settings.roles and not (is_local(host) or settings.insecure or (settings.tls_cert and settings.tls_ca)):
            raise ConfigurationError(
                f"{env_name(name)} {host} can be reached from other machines, and whoever reaches it could be a {PEER[role]}: set "
                "TASKRUNNER_TLS_CERT, TASKRUNNER_TLS_KEY and TASKRUNNER_TLS_CA, or TASKRUNNER_INSECURE=1"
            )


@asynccontextmanager
async def _traces() -> AsyncIterator[None]:
    """Spans are sent, the last ones when all rooms are closed. Raises ConfigurationError without the packages."""
    from taskrunner.kit.trace import exporting

    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(exporting())
        except ImportError as error:
            raise ConfigurationError(
                f"{env_name('traces')}: OpenTelemetry is not installed ({error}): install opentelemetry-sdk and "
                "opentelemetry-exporter-otlp-proto-http, as requirements.txt has them"
            ) from None
        yield


def spare_the_collector() -> None:
    """What is loaded by now stays: the garbage collector need not walk it again. And it looks for cycles after 10,000 new objects instead
    of 700, which a batch makes by itself: a tenth of the API's CPU time went into that, and nothing was found.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _announce(where: dict[str, str], settings: Settings) -> None:
    """Say that all is open: for people on a terminal, else as a log line."""
    if not is_text(settings.log_format, sys.stderr):
        log.info("ready", **where)
        return
    lines = ["", "taskrunner is ready; Ctrl-C stops it", *(f"  {name:<10} {place}" for name, place in reversed(where.items())), ""]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _leave_within(seconds: float) -> None:
    """End the process with 1 if it is still there after ``seconds``: a thread, because the loop may be what hangs."""

    def leave() -> None:
        log.error("closing took too long: leaving now; what was running is started again when its lease is over", seconds=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
