"""The scheduler's loops, opened and closed in order. Any number of schedulers run at once; none of them leads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog
from grpclib.health.check import ServiceStatus

from taskrunner.domain.errors import ConfigurationError, TaskrunnerError, Unavailable
from taskrunner.domain.lanes import Lanes
from taskrunner.domain.task import Back
from taskrunner.kit.loops import every, start
from taskrunner.scheduler.delivery import Delivery
from taskrunner.scheduler.direct import Direct
from taskrunner.scheduler.dispatch import Dispatcher
from taskrunner.scheduler.gatekeeper import Gatekeeper
from taskrunner.scheduler.leases import Leases
from taskrunner.scheduler.lookout import PERIOD, Lookout
from taskrunner.scheduler.roster import Roster
from taskrunner.scheduler.service import SchedulerService
from taskrunner.scheduler.settler import Settler
from taskrunner.scheduler.upkeep import Upkeep
from taskrunner.settings import Settings
from taskrunner.store import migrate, notify
from taskrunner.store.claims import PLANS, Claims, Looks
from taskrunner.store.gates import Gates
from taskrunner.store.pool import Line
from taskrunner.store.sessions import Sessions
from taskrunner.store.settling import Settling
from taskrunner.store.tasks import Store
from taskrunner.store.upkeep import Upkeep as Tables
from taskrunner.wire.server import serving

log = structlog.get_logger()
PATIENCE = 30.0  # seconds that a starting scheduler waits for its database
GOODBYE = 5.0  # seconds that the workers of a stopping one have to go elsewhere, and again for the last outcomes to be settled
TROUBLE = (TaskrunnerError,)


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A running scheduler."""

    address: str
    office: "Office"

    def collector(self) -> Any:
        """What it holds, as metrics; imported when somebody wants them."""
        from taskrunner.scheduler.metrics import SchedulerMetrics

        return SchedulerMetrics(self.office.roster, self.office.settler)


@asynccontextmanager
async def serve(settings: Settings, store: Store) -> AsyncIterator[Scheduler]:
    """Run a scheduler: entered when the schema is there and workers may connect, left when they went elsewhere and all is settled.

    Raises ConfigurationError for a port that is taken or a schema that is newer than this program, Unavailable without a database.
    """
    await _prepare(store)
    async with AsyncExitStack() as stack:
        office = Office(settings, store)
        stack.push_async_callback(office.close)
        await office.gatekeeper.run_once()  # before the first claim
        async with asyncio.TaskGroup() as group:
            loops = office.start(group)
            try:
                async with serving(office.service, settings, "scheduler", health=office.health) as address:
                    try:
                        yield Scheduler(address, office)
                    finally:
                        await office.stop()
            finally:
                for loop in loops:
                    loop.cancel()


async def _prepare(store: Store) -> None:
    """Bring the schema up to date, however many schedulers start at once, and make the leaves of the days to come."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            await _migrate(store)
            await Tables(store.pool, store.meter).make_leaves()
        except Unavailable as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            log.warning("waiting for the database", error=str(error))
            await asyncio.sleep(1)
        else:
            return


async def _migrate(store: Store) -> None:
    if not store.settings.pgbouncer:
        for migration in await migrate.up(store.dsn):
            log.info("schema changed", migration=migration.name)
    elif await migrate.check(store.dsn):  # their lock belongs to a session
        raise ConfigurationError(
            "the schema is not up to date, and a migration cannot go through a PgBouncer: run `taskrunner migrate up` with a DB_DSN that "
            "leads to PostgreSQL itself"
        )


class Office:
    """The cast of the scheduler, and the connections that each keeps for life."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._grace = settings.grace
        pool = store.pool
        self._lines = {name: Line(pool, setup=PLANS) for name in ("claim", "second claim", "look", "settle", "control")}
        self._listening = Line(pool, setup="set statement_timeout = 0")
        self._look_now = asyncio.Event()
        self._gates_now = asyncio.Event()
        roster, lanes = Roster(), Lanes()
        self.roster = roster
        sessions = Sessions(self._lines["control"], store.meter)
        self.leases = Leases(sessions, roster, settings, back=self._came_back)
        first, second = (Claims(self._lines[name], store.meter) for name in ("claim", "second claim"))
        delivery = Delivery(roster, undelivered=self.leases.undelivered)
        self.dispatcher = Dispatcher(first, second, roster, lanes, delivery)
        self.lookout = Lookout(Looks(self._lines["look"]), roster, lanes, self.dispatcher)
        self.gatekeeper = Gatekeeper(Gates(store), lanes, self.dispatcher)
        self.settler = Settler(Settling(self._lines["settle"], store.meter), committed=self.dispatcher.settled, told=store.settled)
        self.upkeep = Upkeep(Tables(pool, store.meter), sessions, settings)
        self.service = SchedulerService(
            settings=settings, sessions=sessions, roster=roster, dispatcher=self.dispatcher, settler=self.settler, leases=self.leases
        )
        self.health = ServiceStatus()
        self.health.set(True)
        store.hints.subscribe(self.heard)
        store.direct = Direct(store, roster, lanes, self.dispatcher, delivery).create

    def heard(self, hint: notify.Hint) -> None:
        """Somebody says that there is something to do."""
        if hint.look:
            self.lookout.look()
            self._look_now.set()
            self._gates_now.set()
        if hint.cancels:
            self.leases.tend()
        if hint.lanes:
            self.dispatcher.hint(hint)

    def _came_back(self, backs: list[Back]) -> None:
        """Tasks were taken back: those that nobody started are in their lanes again, and the lookout finds those that are suspects now."""
        self.dispatcher.found(*backs)
        self._look_now.set()

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start every loop."""
        loops = {
            "dispatcher": self.dispatcher.run(),
            "second dispatcher": self.dispatcher.run_second(),
            "settler": self.settler.run(),
            "lease renewal": self.leases.renew(),
            "lease watch": self.leases.watch(),
            "lookout": every("lookout", PERIOD, self.lookout.run_once, wake=self._look_now, expected=TROUBLE),
            "gatekeeper": every("gatekeeper", PERIOD, self.gatekeeper.run_once, wake=self._gates_now, expected=TROUBLE),
            "listener": every("listener", 1.0, self._listen, expected=TROUBLE),
            "forced cancels": every("forced cancels", 2.0, self.upkeep.force_cancels, expected=TROUBLE),
            "expiry": every("expiry", 1.0, self.upkeep.expire, expected=TROUBLE),
            "upkeep": every("upkeep", 60.0, self.upkeep.each_minute, expected=TROUBLE),
            "leaves": every("leaves", 3600.0, self.upkeep.each_hour, expected=TROUBLE),
        }
        return start(group, loops)

    async def _listen(self) -> None:
        """Hear the hints of other processes. Where nobody can, what is due is found by looking, within a second."""
        if self._store.settings.pgbouncer:
            return
        await self._listening.run(lambda connection: notify.listen(connection, self.heard, but=self._store.hints.name))

    async def stop(self) -> None:
        """Claim nothing more, send the workers elsewhere, settle what they reported, and write down how they parted."""
        self.health.set(False)
        self.dispatcher.stop()
        patience = min(GOODBYE, self._grace / 2)
        await self.service.stop(patience)
        with suppress(TimeoutError, *TROUBLE):
            async with asyncio.timeout(patience):
                await self.settler.flushed()
                await self.leases.write_down()

    async def close(self) -> None:
        """Give the connections back."""
        self._store.direct = None
        self._store.hints.unsubscribe(self.heard)
        for line in (*self._lines.values(), self._listening):
            await line.close()
