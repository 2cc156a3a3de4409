"""The worker, put together. Everything here runs on the worker's own loop."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from grpclib.health.check import ServiceStatus

from taskrunner.handlers.builtin import builtin_handlers
from taskrunner.kit.trace import Tracer
from taskrunner.settings import Settings
from taskrunner.wire.pb.taskrunner.v1 import DescribeReply, Welcome
from taskrunner.wire.server import serving
from taskrunner.worker.beat import Bearers, Beat, Served
from taskrunner.worker.blocking import Blocking
from taskrunner.worker.children import Children, Setup
from taskrunner.worker.link import Link
from taskrunner.worker.loading import all_handlers
from taskrunner.worker.places import Place
from taskrunner.worker.service import WorkerService
from taskrunner.worker.session import Session
from taskrunner.worker.tracing import traced

log = structlog.get_logger()

UNWIND = 0.5  # seconds that handlers have to end when the grace is over, and again that a scheduler has to confirm
PARTING = 0.3  # seconds for the last Goodbye


class Outside(NamedTuple):
    """How workshop and process talk: ``ready`` is called with our address and what we are, ``stop`` is waited for, ``done`` says that all
    is drained.
    """

    ready: Callable[[str, "Shop"], None]
    stop: asyncio.Event
    done: Callable[[], None]


async def work(settings: Settings, addresses: Sequence[str], mail_dir: Path | None, outside: Outside) -> None:
    """Serve until ``stop``, drain, and return once every handler has ended, which may be never: ``done`` comes before.

    Raises ConfigurationError for handlers or an address that cannot be had.
    """
    service, health = WorkerService(), ServiceStatus()
    health.set(False)
    door = serving(service, settings, "worker", health=health)
    async with builtin_handlers(settings, mail_dir=mail_dir) as builtin:
        handlers = all_handlers(builtin, settings.handlers)
        if settings.traces:
            handlers = traced(handlers, Tracer())
        async with door as address, _open_blocking(settings) as blocking, asyncio.TaskGroup() as group:
            session = Session(settings=settings, handlers=handlers, group=group, blocking=blocking)
            place = Place(settings.worker_host, int(address.rpartition(":")[2]))
            shop = Shop(settings=settings, addresses=addresses, session=session, place=place, health=health)
            service.tell = shop.describe
            try:
                await shop.serve(group, outside)
            finally:
                await shop.close()
            blocking.close()
            outside.done()


@asynccontextmanager
async def _open_blocking(settings: Settings) -> AsyncIterator[Blocking]:
    blocking = Blocking(settings.slots, Children(Setup(settings.handlers, settings.log_level, settings.log_format, settings.traces)))
    try:
        yield blocking
    finally:
        blocking.close()


class Shop:
    """A session, the stream and the beats that serve it, and the worker's own server."""

    def __init__(self, *, settings: Settings, addresses: Sequence[str], session: Session, place: Place, health: ServiceStatus) -> None:
        self._settings = settings
        self._session = session
        self._place = place
        self._health = health
        self._asked_to_drain = False
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._link = Link(
            addresses=addresses,
            session=session,
            name=self._name,
            address=place,
            settings=settings,
            begun=self._on_welcome,
            changed=self._on_change,
        )
        bearers = Bearers(renewed=session.renewed, cancel=session.cancel, over=self._link.over, drain=self._drain_once)
        self._beat = Beat(addresses, bearers, settings)

    async def serve(self, group: asyncio.TaskGroup, outside: Outside) -> None:
        """Serve until ``outside.stop``, then drain."""
        watching = group.create_task(_watch(self._beat), name="watch the beat")
        linking = group.create_task(self._link.run(), name="link")
        outside.ready(str(self._place), self)
        await outside.stop.wait()
        self._health.set(False)
        await _drain(self._settings.grace, self._session)
        watching.cancel()
        self._link.close()
        await asyncio.wait([linking], timeout=PARTING)
        linking.cancel()

    async def close(self) -> None:
        """Close what is open, also when it was opened only in part."""
        await self._beat.close()
        self._session.flow.close()

    def collector(self) -> Any:
        """What the worker does, as metrics; imported when somebody wants them."""
        from taskrunner.worker.metrics import WorkerMetrics

        return WorkerMetrics(self._session, lambda: self._link.connected is not None)

    def describe(self) -> DescribeReply:
        """What the worker is and holds."""
        executor = self._session.executor
        return DescribeReply(
            session=self._session.id,
            name=self._name,
            version=version("taskrunner"),
            task_types=list(self._session.handlers),
            queues=list(self._settings.queues),
            slots=self._settings.slots,
            running=len(executor.floor.running) + len(executor.floor.lingering),
            waiting=executor.waiting,
            unconfirmed=self._session.outbox.size,
            draining=executor.stopped,
            scheduler=str(self._link.connected or ""),
        )

    def _on_welcome(self, welcome: Welcome) -> None:
        beat, lease = welcome.beat or self._settings.beat, welcome.lease or self._settings.lease
        self._beat.serve(Served(self._session.id, beat, lease))

    def _drain_once(self) -> None:
        """A scheduler passes on that we are to drain: as SIGTERM, and only one, because a second one would not wait."""
        if not self._asked_to_drain:
            self._asked_to_drain = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _on_change(self) -> None:
        self._health.set(self._link.connected is not None and not self._session.executor.stopped)


async def _watch(beat: Beat) -> None:
    """A beat thread that dies takes the worker with it: without beats it would lose everything that it runs."""
    await asyncio.shield(beat.ended)
    raise RuntimeError("the beat thread ended by itself")


async def _drain(grace: float, session: Session) -> None:
    """Take nothing more, give back what waits, let run what runs as long as grace allows, and see the outcomes confirmed."""
    executor = session.executor
    ends = asyncio.get_running_loop().time() + grace
    executor.stop()
    session.wake.set()
    log.info("draining", running=len(executor.floor.running), unconfirmed=session.outbox.size, seconds=grace)
    with suppress(TimeoutError):
        async with asyncio.timeout_at(ends):
            await executor.floor.idle()
    if executor.floor.running:
        log.warning("the grace is over: what still runs is cancelled and will be run again", running=len(executor.floor.running))
        executor.interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(UNWIND):
                await executor.floor.idle()
        executor.floor.abandon()
    with suppress(TimeoutError):
        async with asyncio.timeout_at(ends + 2 * UNWIND):
            await session.outbox.empty()
    if session.outbox.size:
        log.warning("outcomes were not confirmed; their tasks run again when the lease is over", outcomes=session.outbox.size)
