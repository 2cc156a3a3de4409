"""The handler of the scenario for a Python worker."""

import asyncio
import os
from pathlib import Path
from typing import Any

from taskrunner import Context, task


@task("work")
async def work(ctx: Context, payload: dict[str, Any]) -> dict[str, int]:
    with Path(os.environ["JOURNAL"]).open("a", buffering=1) as journal:
        journal.write(f"start {ctx.task_id} {os.getpid()}\n")
        await asyncio.sleep(payload["seconds"])
        journal.write(f"done {ctx.task_id} {os.getpid()}\n")
    return {"n": payload["n"]}
