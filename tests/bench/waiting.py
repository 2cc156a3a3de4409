"""Ten thousand requests that wait for a task each, on one API process: what they cost, and how soon each is answered.

``python tests/bench/waiting.py [N]``. Twice: the process that settles is another one (it is asked about), or the same (it tells).
"""

import asyncio
import json
import resource
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import cast

import psycopg
import uvloop
from rig import Process, Rig, percentiles, rig, until

API = ("127.0.0.1", 18080)
AT_ONCE = 200  # connections that are opened at the same time
WATCHED = 5.0  # seconds for which the waiting itself is measured


class Waiter(asyncio.Protocol):
    """One request that waits. ``answered`` is done with the task's end and the answer's arrival, both Unix times."""

    def __init__(self, task: str, answered: "asyncio.Future[tuple[float, float]]") -> None:
        self._task = task
        self._answered = answered
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        request = f"GET /api/tasks/{self._task}?wait=60 HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
        cast("asyncio.Transport", transport).write(request.encode())

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        self._buffer += data

    def connection_lost(self, _: Exception | None) -> None:
        """The answer is complete."""
        now = time.time()
        head, _, body = self._buffer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            self._answered.set_exception(RuntimeError(f"{head[:60]!r} {body[:200]!r}"))
            return
        self._answered.set_result((datetime.fromisoformat(json.loads(body)["finished_at"]).timestamp(), now))


def create(n: int) -> list[str]:
    """Ids of ``n`` tasks for later."""
    ids: list[str] = []
    for begin in range(0, n, 10_000):
        numbers = range(begin, min(begin + 10_000, n))
        tasks = [{"task_type": "noop", "payload": {"i": number, "t": 0}, "delay": 3600} for number in numbers]
        request = urllib.request.Request(f"http://{API[0]}:{API[1]}/api/tasks/batch", json.dumps(tasks).encode())
        with urllib.request.urlopen(request) as answer:
            ids += [item["id"] for item in json.loads(answer.read())["items"]]
    return ids


def is_ready() -> bool:
    """Whether the API takes calls."""
    try:
        with urllib.request.urlopen(f"http://{API[0]}:{API[1]}/readyz") as answer:
            return answer.status == 200
    except OSError:
        return False


def memory(process: Process) -> float:
    """Resident memory now, in MB."""
    return int(Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


async def waited(bench: Rig, dsn: str, api: Process, n: int) -> dict[str, object]:
    """``n`` requests wait; then all tasks become due at once."""
    ids = await asyncio.to_thread(create, n)
    before, loop = memory(api), asyncio.get_running_loop()
    answers: list[asyncio.Future[tuple[float, float]]] = [loop.create_future() for _ in ids]
    gate = asyncio.Semaphore(AT_ONCE)

    async def ask(task: str, answer: "asyncio.Future[tuple[float, float]]") -> None:
        async with gate:
            await loop.create_connection(lambda: Waiter(task, answer), *API)

    async with asyncio.TaskGroup() as group:
        for task, answer in zip(ids, answers, strict=True):
            group.create_task(ask(task, answer))
    await asyncio.sleep(2)  # until the last one waits
    cpu, server = api.cpu(), bench.server_cpu()
    await asyncio.sleep(WATCHED)
    waiting = {"api": (api.cpu() - cpu) / WATCHED * 100, "postgres": (bench.server_cpu() - server) / WATCHED * 100}
    held = memory(api) - before
    began, cpu = time.time(), api.cpu()
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("update tasks_live set run_at = clock_timestamp()")
    times = await asyncio.gather(*answers)
    return {
        "requests": n,
        "memory MB": round(held),
        "kB a request": round(held * 1000 / n, 1),
        "CPU % while waiting": {name: round(value, 1) for name, value in waiting.items()},
        "ms from settle to answer": percentiles([arrived - finished for finished, arrived in times]),
        "seconds until all were answered": round(max(arrived for _, arrived in times) - began, 2),
        "API's CPU ms a request": round((api.cpu() - cpu) * 1000 / n, 2),
    }


async def main(n: int) -> None:
    """Both ways."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    async with rig() as bench:
        for name, groups in {"apart": [["scheduler"], ["worker"], ["api"]], "together": [["api", "scheduler", "worker"]]}.items():
            dsn = await bench.database()
            processes = [bench.start(*roles, dsn=dsn) for roles in groups]
            until(is_ready, seconds=30)
            print(name, json.dumps(await waited(bench, dsn, processes[-1], n), indent=2))
            bench.stop(*processes)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
