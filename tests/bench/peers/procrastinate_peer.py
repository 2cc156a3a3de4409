"""procrastinate with the settings that were found fastest: ``python procrastinate_peer.py load N | work``."""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import procrastinate
import uvloop

logging.disable(logging.CRITICAL)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["PEER_DSN"], min_size=4, max_size=32))
seen: list[tuple[int, float, float]] = []


@app.task(name="noop", queue="q")
async def noop(job: dict[str, float]) -> None:
    """Does nothing, and remembers that it did."""
    seen.append((int(job["i"]), job["t"], time.time()))


async def load(n: int) -> None:
    """Install the schema and enqueue ``n`` jobs."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for at in range(0, n, 1000):
            await noop.batch_defer_async(*({"job": {"i": i, "t": 0, "p": "x" * 55}} for i in range(at, min(n, at + 1000))))


async def work() -> None:
    """Work until SIGTERM, then write down what was seen."""

    def leave() -> None:
        Path(os.environ["BENCH_DIR"], f"seen-{os.getpid()}.json").write_text(json.dumps(seen))
        os._exit(0)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave)
    async with app.open_async():
        await app.run_worker_async(
            queues=["q"], concurrency=30, fetch_job_polling_interval=0.1, delete_jobs="successful", install_signal_handlers=False
        )


if __name__ == "__main__":
    uvloop.run(work() if sys.argv[1] == "work" else load(int(sys.argv[2])))
