"""Handlers that say something, by structlog and by logging."""

import asyncio
import logging
import threading
from typing import Any

import structlog

from taskrunner import Context, task

log = structlog.get_logger("shop")
INSIDE, DEAF = threading.Event(), threading.Event()


@task("log.inline")
async def inline(ctx: Context, payload: Any) -> None:
    log.info("inline", n=payload)


@task("log.suspends")
async def suspends(ctx: Context, payload: Any) -> None:
    await asyncio.sleep(0)
    log.info("before", n=payload)
    await asyncio.to_thread(logging.getLogger("library").warning, "from a thread of %s", payload)
    async with asyncio.TaskGroup() as group:
        group.create_task(_aside(payload))


async def _aside(payload: Any) -> None:
    await asyncio.sleep(0.01)
    log.info("aside", n=payload)


@task("log.deaf")
def deaf(ctx: Context, payload: Any) -> None:
    INSIDE.set()
    DEAF.wait(10)


@task("log.thread")
def thread(ctx: Context, payload: Any) -> None:
    log.info("plain", n=payload, attempt="its own word")


@task("log.child", isolation="process")
async def child(ctx: Context, payload: Any) -> None:
    await asyncio.sleep(0)
    logging.getLogger("library").warning("from a child of %s", payload)


@task("log.child_plain", isolation="process")
def child_plain(ctx: Context, payload: Any) -> None:
    log.info("from a plain child", n=payload)
