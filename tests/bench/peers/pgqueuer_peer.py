"""pgqueuer with the settings that were found fastest: ``python pgqueuer_peer.py load N | work | trickle RATE N``."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver
from pgqueuer.adapters.persistence.queries import Queries

logging.disable(logging.CRITICAL)


async def load(n: int) -> None:
    """Install the schema and enqueue ``n`` jobs."""
    async with asyncpg.create_pool(os.environ["PEER_DSN"]) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await queries.install()
        for at in range(0, n, 1000):
            payloads = [json.dumps({"i": i, "t": 0, "p": "x" * 55}).encode() for i in range(at, min(n, at + 1000))]
            await queries.enqueue(["noop"] * len(payloads), payloads, [0] * len(payloads))


async def trickle(rate: float, n: int) -> None:
    """Enqueue ``n`` jobs at ``rate`` a second, each with the time before its call; a second of others warms up before."""
    async with asyncpg.create_pool(os.environ["PEER_DSN"], min_size=4, max_size=32) as pool, asyncio.TaskGroup() as sending:
        queries = Queries(AsyncpgPoolDriver(pool))
        began, warming = time.time() + 0.05, int(rate)
        for k in range(n + warming):
            await asyncio.sleep(max(0.0, began + k / rate - time.time()))
            job = {"i": -1 - k if k < warming else k - warming, "t": time.time(), "p": "x" * 55}
            sending.create_task(queries.enqueue(["noop"], [json.dumps(job).encode()], [0]))


async def work() -> None:
    """Work until SIGTERM, then write down what was seen."""
    seen: list[tuple[int, float, float]] = []

    def leave() -> None:
        Path(os.environ["BENCH_DIR"], f"seen-{os.getpid()}.json").write_text(json.dumps(seen))
        os._exit(0)

    pool = await asyncpg.create_pool(os.environ["PEER_DSN"], min_size=4, max_size=32)
    queuer = PgQueuer.from_asyncpg_pool(pool)

    @queuer.entrypoint("noop")
    async def noop(job: object) -> None:
        payload = json.loads(job.payload)
        seen.append((payload["i"], payload["t"], time.time()))

    running = asyncio.ensure_future(queuer.run(batch_size=500))
    await asyncio.sleep(0.2)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)  # after pgqueuer has set its own
    await running


if __name__ == "__main__":
    command, *numbers = sys.argv[1:]
    if command == "work":
        uvloop.run(work())
    elif command == "trickle":
        uvloop.run(trickle(float(numbers[0]), int(numbers[1])))
    else:
        uvloop.run(load(int(numbers[0])))
