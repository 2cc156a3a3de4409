"""What a system costs that has nothing to do: CPU of each process over some seconds, and its memory."""

import time
from typing import Any

from creates import _up
from rig import Rig, cost, until


async def idle(rig: Rig, *, seconds: float = 15) -> dict[str, Any]:
    """All roles in one process, and then a worker of its own beside it; percent of a core, and MB."""
    dsn = await rig.database()
    everything = rig.start("api", "scheduler", "worker", dsn=dsn)
    until(lambda: _up("http://127.0.0.1:18080/readyz"), seconds=20)
    worker = rig.start("worker", dsn="")
    time.sleep(5)
    with cost(rig, all=everything, worker=worker) as cpu:
        time.sleep(seconds)
    memory = {"all_mb": everything.peak(), "worker_mb": worker.peak()}
    rig.stop(everything, worker)
    return {f"{name}_percent": value / seconds * 100 for name, value in cpu.items()} | memory
