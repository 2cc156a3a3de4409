"""Handlers that misbehave on demand. Each execution leaves its traces in a journal that survives a kill -9."""

import asyncio
import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults.waiting import now

from taskrunner import Context, task

# A child process that runs one task writes in the name of the worker that started it.
HOLDER = int(os.environ.setdefault("FAULT_HOLDER", str(os.getpid())))
NUMBERS = itertools.count()
JOURNAL = os.open(Path(os.environ["FAULT_JOURNALS"]) / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


@contextmanager
def journal(ctx: Context) -> Iterator[None]:
    run = {"run": f"{os.getpid()}-{next(NUMBERS)}", "task": ctx.task_id, "attempt": ctx.attempt, "holder": HOLDER}
    _write(run | {"event": "start"})
    event = "stopped"
    try:
        yield
        event = "done"
    except Exception:
        event = "failed"
        raise
    finally:
        _write(run | {"event": event})


def _write(entry: dict[str, Any]) -> None:
    os.write(JOURNAL, json.dumps(entry | {"at": now()}).encode() + b"\n")


@task("work", backoff_base=0.1)
async def work(ctx: Context, payload: dict[str, Any]) -> dict[str, int]:
    with journal(ctx):
        await asyncio.sleep(payload["seconds"])
    return {"n": payload["n"]}


@task("flaky", backoff_base=0.1)
async def flaky(ctx: Context, payload: dict[str, Any]) -> None:
    with journal(ctx):
        await asyncio.sleep(payload["seconds"])
        if ctx.attempt < payload["good"]:
            raise RuntimeError(f"attempt {ctx.attempt} goes wrong")


@task("blocking")
async def blocking(ctx: Context, payload: dict[str, Any]) -> None:
    with journal(ctx):
        time.sleep(payload["seconds"])


@task("poison", max_attempts=20)
async def poison(ctx: Context, _: dict[str, Any]) -> None:
    with journal(ctx):
        os._exit(7)


@task("stubborn", timeout=2, max_attempts=1, isolation="process")
async def stubborn(ctx: Context, _: dict[str, Any]) -> None:
    with journal(ctx):
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue
