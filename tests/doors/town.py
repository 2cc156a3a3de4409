"""A service as real processes, and workers of any kind beside it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from faults.cluster import free_ports
from faults.processes import Process, end_with_us, plain_environment
from faults.waiting import until

from taskrunner import Client

LEASE = 2.0
HERE = Path(__file__).parent
TASKS, SECONDS = 40, 0.15


class Town:
    """API and scheduler in one process; ``workers`` are started by ``hire``. Everything is killed by ``close``."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.journal.touch()
        self.http, self.grpc = free_ports(2)
        self.settings = {"DB_DSN": dsn, "HTTP_PORT": str(self.http), "SCHEDULER_PORT": str(self.grpc), "TASKRUNNER_LEASE": str(LEASE)}
        self.service = Process(folder / "service.log", ["--roles=api,scheduler"], self.settings)
        self.workers: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def hire(self, command: Sequence[str], **environment: str) -> subprocess.Popen[bytes]:
        """A worker process."""
        with (self.folder / f"worker{len(self.workers)}.log").open("wb") as log:
            worker = subprocess.Popen(
                command,
                env=plain_environment() | {"JOURNAL": str(self.journal), "SCHEDULER_ADDRESS": f"127.0.0.1:{self.grpc}"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_us,  # noqa: PLW1509 — one system call, in a child of a process without threads
            )
        self.workers.append(worker)
        return worker

    def lines(self) -> list[tuple[str, str, int]]:
        """What the handlers wrote: (start or done, task, process)."""
        rows = [line.split() for line in self.journal.read_text().splitlines()]
        return [(what, task, int(pid)) for what, task, pid in rows]

    def open_at(self, pid: int) -> set[str]:
        """Tasks that the process has started and not done."""
        lines = [(what, task) for what, task, holder in self.lines() if holder == pid]
        return {task for what, task in lines if what == "start"} - {task for what, task in lines if what == "done"}

    def logs(self) -> str:
        return "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-2000:]}" for log in self.folder.glob("*.log"))

    def close(self) -> None:
        for worker in self.workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait(10)
        self.service.kill()


async def one_of_two_is_killed(town: Town, hire: Callable[[], subprocess.Popen[bytes]]) -> None:
    """The scenario of every door: two workers, one is killed, all tasks are executed, and only what the dead one held runs again."""
    await town.service.said("ready")
    first, second = hire(), hire()
    async with Client(town.url) as client:
        await until(lambda: _answers(client), within=20, what="the API")
        made = await client.create_batch([{"task_type": "work", "payload": {"n": n, "seconds": SECONDS}} for n in range(TASKS)])
        await until(lambda: len(town.open_at(first.pid)) >= 2 and town.open_at(second.pid), within=20, what=f"work\n{town.logs()}")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait(10)
        held = town.open_at(first.pid)
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(client.wait(one.id, 25)) for one in made]
    ended = [one.result() for one in waiting]
    assert [(task.status, task.result) for task in ended] == [("COMPLETED", {"n": n}) for n in range(TASKS)], town.logs()
    starts = [task for what, task, _ in town.lines() if what == "start"]
    assert set(starts) == {one.id for one in made}
    assert held
    assert {task for task in starts if starts.count(task) > 1} <= held | unsettled(town, first.pid)
    assert held <= {task for what, task, pid in town.lines() if pid == second.pid and what == "done"}
    assert {task.attempt for task in ended if task.id in held} == {2}


def unsettled(town: Town, pid: int) -> set[str]:
    """What the dead worker was done with in its last tenth of a second: it may not have said so any more."""
    done = [task for what, task, holder in town.lines() if holder == pid and what == "done"]
    return {*done[-5:]}


async def _answers(client: Client) -> bool:
    with suppress(Exception):
        return [task async for task in client.list()] == []
    return False


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, str(HERE / script), *arguments]
