"""Faults at random, several at a time: what the rows of the acceptance table do one by one, mixed from a seed."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

import psycopg
from faults.checker import Absence
from faults.cluster import GRACE, LEASE, WORKERS, Cluster
from faults.proxy import DOWN, UP, Proxy
from faults.waiting import now

POSTGRES = "postgres"
OURS = "from pg_stat_activity where application_name = 'taskrunner' and backend_type = 'client backend'"


class Fault(NamedTuple):
    """``row`` of the acceptance table; ``kind`` of process that it is done to; how often it is drawn."""

    row: str
    kind: str
    weight: int
    do: Callable[["Nemesis", str, random.Random], Awaitable[None]]


class Nemesis:
    """``mortal`` are the processes that may be killed and stopped; ``down`` those that shall not be started again yet."""

    def __init__(self, cluster: Cluster, seed: str, mortal: set[str]) -> None:
        self.cluster = cluster
        self.mortal = mortal
        self.down: set[str] = set()
        self.done: Counter[str] = Counter()
        self.story: list[tuple[float, str]] = []
        self.resting = False
        self._seed = seed
        self._taken: set[str] = set()

    async def torment(self, strand: int) -> None:
        """One fault after the other, for ever. Several strands at once mix them; no two hit the same process, or the database."""
        dice = random.Random(f"{self._seed}/{strand}")
        while True:
            fault = dice.choices(FAULTS, [fault.weight for fault in FAULTS])[0]
            victim = dice.choice(self._victims(fault))
            if not self.resting and victim not in self._taken:
                await self._strike(fault, victim, dice)
            await asyncio.sleep(dice.uniform(0.2, 2.5))

    def _victims(self, fault: Fault) -> list[str]:
        if fault.kind == POSTGRES:
            return [POSTGRES]
        deadly = fault.do in (_kill, _ask_to_stop)
        return [name for name in self.cluster.names if name.startswith(fault.kind) and (name in self.mortal or not deadly)]

    async def _strike(self, fault: Fault, victim: str, dice: random.Random) -> None:
        self.story.append((now(), f"{fault.row} {fault.do.__name__.strip('_')} {victim}"))
        with self.takes(victim), suppress(psycopg.Error):  # the database may be in no state to be asked for this one
            await fault.do(self, victim, dice)
            self.done[fault.row] += 1
        self.story.append((now(), f"{fault.row} is over for {victim}"))

    @contextmanager
    def takes(self, victim: str) -> Iterator[None]:
        """Nobody else does anything to it meanwhile."""
        self._taken.add(victim)
        try:
            yield
        finally:
            self._taken.discard(victim)

    def free(self, names: Iterable[str]) -> list[str]:
        """Those of them that nothing is done to."""
        return [name for name in names if name not in self._taken]

    async def rest(self) -> None:
        """Begin nothing new, and return when all is whole."""
        self.resting = True
        while self._taken:
            await asyncio.sleep(0.05)

    def links_of(self, name: str) -> Iterator[Proxy]:
        """Between that worker and the schedulers, or that scheduler and the workers."""
        return (link for ends, link in self.cluster.links.items() if name in ends)

    @contextmanager
    def cut_off(self, name: str) -> Iterator[None]:
        """Note that this worker is not reached, or does not reach anybody, meanwhile."""
        since, before = now(), self.cluster.pid(name)
        try:
            yield
        finally:  # it may have died meanwhile, and have been started again
            self.cluster.absences += [Absence(pid, since, now()) for pid in {before, self.cluster.pid(name)}]


# ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _kill(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    nemesis.down.add(name)
    try:
        nemesis.cluster.kill(name)
        await asyncio.sleep(dice.choice([0.0, dice.uniform(0, LEASE), dice.uniform(0, 2 * LEASE)]))
    finally:
        nemesis.down.discard(name)


async def _ask_to_stop(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    nemesis.cluster.ask(name)
    await nemesis.cluster.processes[name].ended(within=20 * (GRACE + 2))


async def _pause(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    since = nemesis.cluster.pause(name)
    try:
        await asyncio.sleep(dice.choice([dice.uniform(0.1, 0.9), dice.uniform(0, LEASE), dice.uniform(LEASE, 3 * LEASE)]))
    finally:
        nemesis.cluster.resume(name, since)


# ── networks ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _reset(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 5)):
        for link in nemesis.links_of(name):
            link.reset()
        await asyncio.sleep(dice.uniform(0.2, 1.2))


async def _stall(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    ways = dice.choice([(UP,), (DOWN,), (UP, DOWN)])
    await _break_links(
        nemesis, name, dice.choice([dice.uniform(0.1, LEASE), dice.uniform(LEASE, 3 * LEASE)]), lambda link: link.stall(*ways)
    )


async def _swallow(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    way = dice.choice([UP, DOWN])
    await _break_links(nemesis, name, dice.uniform(0.1, 2 * LEASE), lambda link: link.swallows.add(way))


async def _delay(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    links, delay = [*nemesis.links_of(name)], dice.uniform(0.005, 0.05)
    for link in links:
        link.delay = delay
    try:
        await asyncio.sleep(dice.uniform(1, 5))
    finally:
        for link in links:
            link.delay = 0.0


async def _break_links(nemesis: Nemesis, name: str, seconds: float, how: Callable[[Proxy], None]) -> None:
    links = [*nemesis.links_of(name)]
    with ExitStack() as stack:
        if name in WORKERS:
            stack.enter_context(nemesis.cut_off(name))
        for link in links:
            stack.callback(link.flow)
            how(link)
        await asyncio.sleep(seconds)


async def _report_late(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    """Outcomes lie in a scheduler that is stopped, until their worker is given up by the other one and its tasks run again."""
    if not (workers := nemesis.free(WORKERS)):
        return
    worker = dice.choice(workers)
    since = nemesis.cluster.pause(name)
    with nemesis.takes(worker):
        try:
            await asyncio.sleep(dice.uniform(0.2, 0.6))
            await _break_links(nemesis, worker, dice.uniform(LEASE, 1.6 * LEASE), lambda link: link.stall(UP, DOWN))
        finally:
            nemesis.cluster.resume(name, since)


async def _lose_the_database(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    wire = nemesis.cluster.wires[name]
    how = dice.choice(["stall up", "stall down", "swallow up", "swallow down", "reset", "delay"])
    word, _, way = how.partition(" ")
    try:
        if word == "stall":
            wire.stall(way)
        elif word == "swallow":
            wire.swallows = {way}
        elif word == "delay":
            wire.delay = 0.01
        else:
            wire.reset()
        await asyncio.sleep(dice.uniform(0.1, LEASE))
    finally:
        wire.delay = 0.0
        wire.flow()


# ── the database ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _crash(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    await nemesis.cluster.server.crash()
    await asyncio.sleep(dice.choice([0.0, dice.uniform(0, 2 * LEASE)]))
    await nemesis.cluster.server.start()


async def _restart(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 3)):
        await nemesis.cluster.server.stop()
        await nemesis.cluster.server.start()
        await asyncio.sleep(dice.uniform(0, 1))


async def _end_connections(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    for _ in range(dice.randint(3, 20)):
        if backends := await nemesis.cluster.server.ask(f"select pid {OURS}"):
            await nemesis.cluster.server.ask("select pg_terminate_backend(%s)", dice.choice(backends))
        await asyncio.sleep(0.2)


async def _deafen(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 20)):
        await nemesis.cluster.server.ask(f"select pg_terminate_backend(pid) {OURS} and query = 'listen taskrunner'")
        await asyncio.sleep(0.1)


async def _only_read(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    ask = nemesis.cluster.server.ask
    await ask("alter system set default_transaction_read_only = on")
    await ask("select pg_reload_conf()")
    await asyncio.sleep(dice.uniform(0.5, LEASE))
    await ask("alter system reset default_transaction_read_only")
    await ask("select pg_reload_conf()")


async def _lock(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    table = dice.choice(["tasks", "tasks_live", "tasks_finished"])
    async with await psycopg.AsyncConnection.connect(nemesis.cluster.server.dsn) as connection:
        await connection.execute(f"lock table {table}")
        await asyncio.sleep(dice.uniform(0.5, 5))


async def _exhaust(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    held: list[psycopg.AsyncConnection] = []
    try:
        with suppress(psycopg.OperationalError):  # until no more are to be had
            while True:
                held.append(await psycopg.AsyncConnection.connect(nemesis.cluster.server.dsn, autocommit=True))
        await asyncio.sleep(dice.uniform(0.5, 4))
    finally:
        for connection in held:
            await connection.close()


async def _hold_a_snapshot(nemesis: Nemesis, name: str, dice: random.Random) -> None:
    async with await psycopg.AsyncConnection.connect(nemesis.cluster.server.dsn) as connection:
        await connection.execute("set transaction isolation level repeatable read")
        await connection.execute("select count(*) from tasks")
        await asyncio.sleep(dice.uniform(5, 20))


FAULTS = (
    Fault("F01", "worker", 5, _kill),
    Fault("F02", "worker", 5, _pause),
    Fault("F06", "scheduler", 4, _kill),
    Fault("F08", "scheduler", 4, _pause),
    Fault("F08", "scheduler", 5, _report_late),
    Fault("F09", "api", 2, _kill),
    Fault("F11", POSTGRES, 2, _crash),
    Fault("F12", POSTGRES, 2, _restart),
    Fault("F13", POSTGRES, 3, _end_connections),
    Fault("F15", POSTGRES, 2, _only_read),
    Fault("F16", POSTGRES, 2, _deafen),
    Fault("F18", POSTGRES, 1, _hold_a_snapshot),
    Fault("F19", POSTGRES, 2, _lock),
    Fault("F21", POSTGRES, 2, _exhaust),
    Fault("F22", "worker", 4, _stall),
    Fault("F23", "scheduler", 5, _lose_the_database),
    Fault("F23", "api", 3, _lose_the_database),
    Fault("F24", "worker", 4, _swallow),
    Fault("slow", "worker", 2, _delay),
    Fault("F26", "worker", 4, _reset),
    Fault("F32", "worker", 3, _ask_to_stop),
    Fault("F34", "scheduler", 3, _ask_to_stop),
    Fault("F34", "api", 2, _ask_to_stop),
)
