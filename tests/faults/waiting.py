"""Waiting for a condition, and the one clock that journals, harness and database share."""

import asyncio
import inspect
import os
import time
from collections.abc import Callable
from typing import Any

LOOK = 0.02
# Of the harness, and inherited: a process whose wall clock is wrong (F28) still writes the right time into its journal.
OFFSET = float(os.environ.setdefault("FAULT_OFFSET", str(time.time() - time.monotonic())))


def now() -> float:
    """Unix seconds. The database of these tests runs on the same machine, so its times compare with these."""
    return time.monotonic() + OFFSET


async def until(condition: Callable[[], Any], *, within: float, what: str) -> Any:
    """The first true answer of ``condition``, plain or to be awaited, asked again and again. AssertionError after ``within`` seconds."""
    ends = time.monotonic() + within
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < ends, f"waited {within:g} s in vain for {what}"
        await asyncio.sleep(LOOK)
