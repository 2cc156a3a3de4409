"""A whole installation to be mistreated: PostgreSQL, schedulers, workers, an API, and proxies between them where a scenario wants them."""

import asyncio
import json
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import aiohttp
from faults.checker import FOREVER, Absence
from faults.database import HISTORY, Server
from faults.processes import Process
from faults.proxy import Proxy, proxy
from faults.waiting import now, until

LEASE = 3.0
BEAT = LEASE / 5
GRACE = 2.0
SLOTS = 20
SCHEDULERS = ("scheduler-1", "scheduler-2")
WORKERS = ("worker-1", "worker-2", "worker-3")
API = "api-1"
API2 = "api-2"  # only where a scenario asks for it
LISTENING = range(20_000, 32_000)  # below the ports of outgoing connections, or one of these takes it while a process is down


class Cluster:
    """Its processes by name. What is started again listens where it listened before."""

    def __init__(self, folder: Path, server: Server, *, apis: Sequence[str] = (API,)) -> None:
        self.folder = folder
        self.server = server
        self.names = (*SCHEDULERS, *apis, *WORKERS)
        self.journals = folder / "journals"
        self.journals.mkdir(mode=0o777)
        self.links: dict[tuple[str, str], Proxy] = {}  # by worker and scheduler
        self.wires: dict[str, Proxy] = {}  # between PostgreSQL and a scheduler or an API
        self.ports = dict(zip((*SCHEDULERS, *apis), free_ports(2 + len(apis)), strict=True))
        self.settings: dict[str, dict[str, str]] = {}  # by name: what is special about a process, whenever it is started
        self.processes: dict[str, Process] = {}
        self.absences: list[Absence] = []
        self.asked: dict[int, float] = {}  # when a process was asked to stop
        self._starts = 0
        self._all: list[Process] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[API]}"

    def launch(self, name: str, **settings: str) -> Process:
        """Start the process of that name, without waiting for it."""
        role = name.partition("-")[0]
        self._starts += 1
        environment = {
            "TASKRUNNER_ROLES": role,
            "TASKRUNNER_LEASE": str(LEASE),
            "TASKRUNNER_GRACE": str(GRACE),
            "TASKRUNNER_CANCEL_GRACE": "1",
            "TASKRUNNER_BACKOFF_BASE": "0.1",
            "WORKER_PORT": "0",
        }
        if role == "worker":
            where = [self.links[name, to].port if self.links else self.ports[to] for to in SCHEDULERS]
            environment["SCHEDULER_ADDRESS"] = ",".join(f"127.0.0.1:{port}" for port in where)
            environment["FAULT_JOURNALS"] = str(self.journals)
            environment |= {"TASKRUNNER_HANDLERS": "faults.workload", "TASKRUNNER_SLOTS": str(SLOTS)}
        else:
            dsn = self.server.at(self.wires[name].port if self.wires else self.server.port, user="owner")
            environment |= {"DB_DSN": dsn, "HTTP_PORT" if role == "api" else "SCHEDULER_PORT": str(self.ports[name])}
        environment |= self.settings.get(name, {})
        process = Process(self.folder / f"{name}.{self._starts}.log", (), environment | settings)
        self.processes[name] = process
        self._all.append(process)
        return process

    async def start(self) -> None:
        """Start what does not run, and wait until tasks can flow."""
        for name in self.names:
            if name not in self.processes or not self.processes[name].alive:
                self.launch(name)
        for name, process in self.processes.items():
            await process.said("ready")
            if name in WORKERS:
                await process.said("connected")
        await until(self._open, within=20, what="the door of the API")

    async def _open(self) -> bool:
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(f"{self.url}/readyz") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

    def pid(self, name: str) -> int:
        return self.processes[name].pid

    def kill(self, name: str) -> float:
        """kill -9; when."""
        at = now()
        self.processes[name].kill()
        self.absences.append(Absence(self.pid(name), at, FOREVER))
        return at

    def pause(self, name: str) -> float:
        """SIGSTOP; when."""
        self.processes[name].signal(signal.SIGSTOP)
        return now()

    def scheduler_of(self, worker: str) -> str:
        """Which scheduler has the Work stream of that worker."""
        ports = {proxy.port: name for (_, name), proxy in self.links.items()} or {self.ports[name]: name for name in SCHEDULERS}
        where = str(self.processes[worker].events("connected")[-1]["scheduler"])
        return ports[int(where.rpartition(":")[2])]

    def ask(self, name: str) -> float:
        """SIGTERM; when."""
        at = self.asked[self.pid(name)] = now()
        self.processes[name].signal(signal.SIGTERM)
        return at

    def resume(self, name: str, since: float) -> float:
        """SIGCONT; when."""
        at = now()
        self.absences.append(Absence(self.pid(name), since, at))
        self.processes[name].signal(signal.SIGCONT)
        return at

    async def revive(self, names: Sequence[str] = WORKERS, *, but: Container[str] = ()) -> None:
        """Start processes again that die, for ever: what an init system does. Those in ``but`` stay down for now."""
        while True:
            for name in names:
                if name not in but and not self.processes[name].alive:
                    self.absences.append(Absence(self.pid(name), now(), FOREVER))
                    self.launch(name)
            await asyncio.sleep(0.05)

    def journal(self) -> list[dict[str, Any]]:
        """Everything that handlers wrote down. A line is written whole."""
        return [json.loads(line) for path in self.journals.iterdir() for line in path.read_text().splitlines()]

    def count(self, events: str, *, among: tuple[str, ...] = SCHEDULERS) -> int:
        """How often these processes logged something that begins so."""
        return sum(len(self.processes[name].events(events)) for name in among)

    def close(self) -> None:
        """Kill everything."""
        for process in self._all:
            process.kill()

    def logs(self) -> str:
        """Where to look, and the warnings."""
        lines = [f"logs in {self.folder}"]
        for path in sorted(self.folder.glob("*.log")):
            bad = [line for line in path.read_text(errors="replace").splitlines() if '"warning"' in line or '"error"' in line]
            lines += [f"── {path.name}", *bad[-8:]]
        return "\n".join(lines)


def free_ports(n: int) -> list[int]:
    """Ports that nobody uses now."""
    ports = set[int]()
    while len(ports) < n:
        port = secrets.choice(LISTENING)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.add(port)
    return list(ports)


@asynccontextmanager
async def cluster(
    folder: Path,
    binaries: Path | None,
    *,
    proxied: bool = False,
    apis: Sequence[str] = (API,),
    settings: Mapping[str, dict[str, str]] | None = None,
    server: Server | None = None,
) -> AsyncIterator[Cluster]:
    """A running cluster. ``proxied``: workers reach the schedulers, and these and the APIs the database, through proxies.

    ``settings`` are special ones by the name of the process; ``server`` is a special PostgreSQL.
    """
    server = server or Server(folder / "postgres", free_ports(1)[0], binaries)
    async with AsyncExitStack() as stack:
        stack.callback(server.discard)
        await server.start()
        one = Cluster(folder, server, apis=apis)
        one.settings |= settings or {}
        stack.callback(one.close)
        if proxied:
            for way in product(WORKERS, SCHEDULERS):
                one.links[way] = await stack.enter_async_context(proxy(one.ports[way[1]]))
            for name in (*SCHEDULERS, *apis):
                one.wires[name] = await stack.enter_async_context(proxy(server.port))
        scheduler = one.launch(SCHEDULERS[0])
        await scheduler.said("ready")
        await server.ask(HISTORY)
        await one.start()
        yield one


async def sessions_of(one: Cluster, pid: int) -> list[tuple[str, float]]:
    """Live sessions of that process: status and when each began."""
    rows = await one.server.ask(
        "select status, extract(epoch from started_at)::float8 from sessions where name like '%%:' || %s order by started_at", [str(pid)]
    )
    return [(status, began) for status, began in rows]


async def silent(one: Cluster, scenario: str, within: float) -> None:
    """Return when no task of the scenario is live any more."""

    async def empty() -> bool:
        return not await one.server.ask("select 1 from tasks_live where payload->>'scenario' = %s limit 1", [scenario])

    await until(empty, within=within, what=f"the backlog of {scenario}")
