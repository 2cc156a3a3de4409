"""Handlers with spans of their own, and one that looks what its worker has imported."""

import asyncio
import sys
from typing import Any

from taskrunner import Context, Fail, Snooze, task


@task("trace.loop")
async def loop(ctx: Context, payload: Any) -> None:
    await asyncio.sleep(0)
    _own("loop")


@task("trace.inline")
async def inline(ctx: Context, payload: Any) -> None:
    _own("inline")


@task("trace.thread")
def thread(ctx: Context, payload: Any) -> None:
    _own("thread")


@task("trace.child", isolation="process")
def child(ctx: Context, payload: Any) -> None:
    _own("child")


@task("trace.fail")
async def fail(ctx: Context, payload: Any) -> None:
    raise Fail("the card 4242 was refused")


@task("trace.snooze")
async def snooze(ctx: Context, payload: Any) -> None:
    if ctx.attempt == 1 and "once" not in sys.modules:
        sys.modules["once"] = sys
        raise Snooze(0.01)


@task("trace.modules")
async def modules(ctx: Context, payload: Any) -> list[str]:
    return [name for name in sys.modules if name.startswith("opentelemetry")]


def _own(where: str) -> None:
    from opentelemetry import trace

    with trace.get_tracer("shop").start_as_current_span(f"own {where}"):
        pass
