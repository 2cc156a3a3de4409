"""Waiting for a condition, and the one clock that journals, harness and database share."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
LOOK = 0.02


def now() -> float:
    """Unix seconds. The database of these tests runs on the same machine, so its times compare with these."""
    return time.time()  # noqa: TID251 — compared with the database's clock


async def until(condition: Callable[[], T | Awaitable[T]], *, within: float, what: str) -> T:
    """The first true answer of ``condition``, asked again and again. AssertionError after ``within`` seconds."""
    ends = time.monotonic() + within
    while True:
        answer = condition()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        assert time.monotonic() < ends, f"waited {within:g} s in vain for {what}"
        await asyncio.sleep(LOOK)
