"""Handlers for workers that run in a thread or process of their own."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from taskrunner import Context, task


@task("wire.echo", timeout=7, max_attempts=3)
async def echo(ctx: Context, payload: Any) -> Any:
    return payload


@task("wire.trace")
async def trace(ctx: Context, payload: Any) -> tuple[str | None, str]:
    return ctx.traceparent, ctx.session


@task("wire.trace_plain")
def trace_plain(ctx: Context, payload: Any) -> tuple[str | None, str]:
    return ctx.traceparent, ctx.session


@task("wire.block")
async def block(ctx: Context, payload: float) -> str:
    time.sleep(payload)
    return "slept"


@task("wire.sleep")
async def sleep(ctx: Context, payload: float) -> str:
    await asyncio.sleep(payload)
    return "slept"


@task("wire.wait")
async def wait(ctx: Context, payload: str) -> str:
    """Until the file is there."""
    while not Path(payload).exists():
        await asyncio.sleep(0.005)
    return "seen"


@task("wire.deaf")
def deaf(ctx: Context, payload: float) -> None:
    time.sleep(payload)


@task("wire.exit")
async def exits_in_the_background(ctx: Context, payload: Any) -> str:
    async def leave() -> None:
        sys.exit(3)

    background = asyncio.ensure_future(leave())
    await asyncio.wait([background])
    return "still here"


@task("wire.tell")
async def tell(ctx: Context, payload: str) -> None:
    """Until the file is there, saying so."""
    await ctx.progress(0.4, "waiting for the file")
    while not Path(payload).exists():
        await asyncio.sleep(0.005)
    await ctx.progress(1, "seen")
