"""Handlers that run in children: the kinds of trouble that only a process of one's own survives."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from taskrunner.sdk import Context, Fail, Retry, task


class Order(BaseModel):
    number: int


@task("child.echo", isolation="process")
def echo(ctx: Context, payload: Any) -> dict[str, Any]:
    print("noise on stdout does no harm")
    return {"pid": os.getpid(), "payload": payload, "task_id": ctx.task_id, "attempt": ctx.attempt, "queue": ctx.queue}


@task("child.trace", isolation="process")
def trace(ctx: Context, payload: Any) -> tuple[str | None, str]:
    return ctx.traceparent, ctx.session


@task("child.async", isolation="process")
async def in_a_loop(ctx: Context, payload: Order) -> int:
    await asyncio.sleep(0)
    return payload.number


@task("child.exit", isolation="process")
def leave(ctx: Context, payload: int) -> None:
    os._exit(payload)


@task("child.sysexit", isolation="process")
def leave_politely(ctx: Context, payload: int) -> None:
    sys.exit(payload)


@task("child.segfault", isolation="process")
def crash(ctx: Context, payload: Any) -> None:
    ctypes.string_at(0)


@task("child.spin", isolation="process")
def spin(ctx: Context, payload: Any) -> None:
    while True:
        pass


@task("child.deaf", isolation="process")
def deaf(ctx: Context, payload: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(payload).write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)


@task("child.orphan", isolation="process")
def leaves_a_grandchild(ctx: Context, payload: str) -> None:
    sock = int(sys.argv[1])  # what a fork, unlike a program of its own, would inherit
    os.set_inheritable(sock, True)
    grandchild = subprocess.Popen(["sleep", "60"], pass_fds=[sock])
    Path(payload).write_text(str(grandchild.pid))
    os.kill(os.getpid(), signal.SIGKILL)


@task("child.fail", isolation="process")
def fail(ctx: Context, payload: Any) -> None:
    raise Fail("no such customer")


@task("child.retry", isolation="process")
def retry(ctx: Context, payload: Any) -> None:
    raise Retry("busy", after=7)


@task("child.error", isolation="process")
def error(ctx: Context, payload: Any) -> None:
    raise LookupError("not here")


@task("child.result", isolation="process")
def result(ctx: Context, payload: int) -> str:
    return "x" * payload


@task("child.progress", isolation="process")
def progress(ctx: Context, payload: int) -> str:
    for n in range(1, payload + 1):
        ctx.progress(n / payload, f"step {n}")
    return "said"
