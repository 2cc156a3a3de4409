"""Many idle workers in one process, each with its own session, streams and beat thread: ``python -m faults.herd MANY ADDRESS,…``."""

import asyncio
import sys

from taskrunner.kit.log import configure
from taskrunner.settings import Settings
from taskrunner.worker.workshop import Outside, work


async def main(many: int, addresses: list[str]) -> None:
    settings = Settings(roles=("worker",), worker_port=0, slots=5, log_level="error")
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(many):
            outside = Outside(ready=lambda _, __: None, stop=stop, done=lambda: None)
            group.create_task(work(settings, addresses, None, outside))
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    configure("error", "json")
    asyncio.run(main(int(sys.argv[1]), sys.argv[2].split(",")))
