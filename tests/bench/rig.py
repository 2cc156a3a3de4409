"""What every benchmark needs: a durable PostgreSQL of its own, processes of ours, and what they cost."""

import ctypes
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from taskrunner.store import migrate
from taskrunner.store.embedded import Embedded, embedded_postgres
from taskrunner.store.meter import Meter
from taskrunner.store.pool import open_pool
from taskrunner.store.upkeep import Upkeep

HERE = Path(__file__).parent
SERVER = {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "200"}  # fsync and synchronous_commit stay on


@dataclass
class Rig:
    """A server, and a folder where handlers write down what they saw."""

    server: Embedded
    folder: Path
    databases: int = 0
    processes: list["Process"] = field(default_factory=list)

    async def database(self, *, schema: bool = True, durable: bool = True) -> str:
        """The DSN of a fresh database, with our schema and its leaves; not ``durable`` with synchronous_commit off."""
        self.databases += 1
        name = f"bench_{self.databases}"
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(f"create database {name}")
            if not durable:
                connection.execute(f"alter database {name} set synchronous_commit = off")
        dsn = make_conninfo(self.server.dsn, dbname=name)
        if schema:
            await migrate.up(dsn)
            async with open_pool(dsn) as pool:
                await Upkeep(pool, Meter()).make_leaves()
        return dsn

    def start(self, *roles: str, dsn: str, **env: str) -> "Process":
        """Start ``taskrunner`` with these roles."""
        command = [sys.executable, "-m", "taskrunner", f"--roles={','.join(roles)}"]
        if "worker" in roles:
            command.append("--handlers=handlers")
        base = {"DB_DSN": dsn, "SCHEDULER_PORT": "18100", "SCHEDULER_ADDRESS": "127.0.0.1:18100", "HTTP_PORT": "18080", "WORKER_PORT": "0"}
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        base |= {"BENCH_DIR": str(self.folder), "PYTHONPATH": path, "TASKRUNNER_LOG_LEVEL": "warning"}
        return self.run("+".join(roles), command, base | env)

    def run(self, name: str, command: Sequence[str], env: dict[str, str]) -> "Process":
        """Start any program."""
        log = (self.folder / f"{len(self.processes)}-{name}.log").open("w")
        process = Process(name, subprocess.Popen(command, env=os.environ | env, stdout=log, stderr=log, cwd=HERE, preexec_fn=_die_with_us))  # noqa: PLW1509 — no threads here
        self.processes.append(process)
        return process

    def stop(self, *processes: "Process") -> None:
        """Stop processes as an operator would, the last one first."""
        for process in reversed(processes):
            process.popen.send_signal(signal.SIGTERM)
            process.popen.wait(30)

    def seen(self) -> list[tuple[int, float, float]]:
        """What the handlers of stopped workers saw: (number, reference time, start), and forget it."""
        rows: list[tuple[int, float, float]] = []
        for file in self.folder.glob("seen-*.json"):
            rows += json.loads(file.read_text(encoding="utf-8"))
            file.unlink()
        return rows

    def server_cpu(self) -> float:
        """CPU seconds of the PostgreSQL server so far, all its processes."""
        pid = int((self.server.data_dir / "pgdata" / "postmaster.pid").read_text().split("\n", 1)[0])
        postmaster = psutil.Process(pid)
        total = 0.0
        for process in [postmaster, *postmaster.children()]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + (times.children_user + times.children_system if process is postmaster else 0)
        return total


def _die_with_us() -> None:
    """Ask the kernel to kill this child when its parent goes, however it goes: it holds the ports of the next run."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@dataclass
class Process:
    """A running program."""

    name: str
    popen: "subprocess.Popen[bytes]"

    def cpu(self) -> float:
        """CPU seconds so far."""
        times = psutil.Process(self.popen.pid).cpu_times()
        return times.user + times.system

    def peak(self) -> float:
        """Peak memory in MB."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """A rig; whatever still runs at the end is killed."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        async with embedded_postgres(Path(folder) / "pg", options=SERVER) as server:
            made = Rig(server, Path(folder))
            try:
                yield made
            finally:
                for process in made.processes:
                    if process.popen.poll() is None:
                        process.popen.kill()
                        process.popen.wait()


@contextmanager
def cost(rig: Rig, **processes: Process) -> Iterator[dict[str, float]]:
    """CPU seconds that the server and the processes spend inside, by name."""
    before = {name: process.cpu() for name, process in processes.items()} | {"postgres": rig.server_cpu()}
    spent: dict[str, float] = {}
    yield spent
    spent |= {name: process.cpu() - before[name] for name, process in processes.items()}
    spent["postgres"] = rig.server_cpu() - before["postgres"]


def once(seen: Sequence[tuple[int, float, float]], n: int) -> bool:
    """Whether each of ``n`` tasks, numbered from 0, ran exactly once. Warming up has negative numbers."""
    numbers = [number for number, _, _ in seen if number >= 0]
    return len(numbers) == n and len(set(numbers)) == n


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in milliseconds."""
    ordered = sorted(values)
    at = {
        name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    return {name: round(value, 2) for name, value in at.items()} | {"max": round(ordered[-1] * 1000, 2)}


def until(condition: Any, *, seconds: float, step: float = 0.02) -> None:
    """Wait until ``condition()`` is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(step)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)
