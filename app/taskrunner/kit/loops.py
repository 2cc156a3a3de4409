"""The one shape of periodic work: a pass, a wait, the next pass."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import structlog

log = structlog.get_logger()

JITTER = 0.1


def start(group: asyncio.TaskGroup, loops: Mapping[str, Coroutine[Any, Any, None]]) -> list[asyncio.Task[None]]:
    """Start the loops of a room, each under its name. One that dies ends the process: a loop that cannot go on must not look alive. That is
    said at once: before anybody hears of the error the rooms are closed, which takes its time and may hang.
    """
    tasks = [group.create_task(loop, name=name) for name, loop in loops.items()]
    for task in tasks:
        task.add_done_callback(_say_if_dead)
    return tasks


def _say_if_dead(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a loop died, and with it the process ends", loop=task.get_name(), exc_info=error)


async def every(  # noqa: PLR0913 — each is a property of the loop; what differs between loops is given by keyword
    name: str,
    interval: float,
    run_once: Callable[[], Awaitable[object]],
    *,
    stop: asyncio.Event | None = None,
    wake: asyncio.Event | None = None,
    expected: tuple[type[Exception], ...] = (),
) -> None:
    """Call ``run_once`` now and then again about every ``interval`` seconds, until ``stop`` is set or the task is cancelled.

    ``run_once`` does one bounded pass that may be repeated at any time. ``wake`` brings the next pass forward and is cleared here.
    An exception of ``expected`` is logged, and the next pass waits its full interval whatever wakes it, so that trouble never makes a
    tight loop. Any other exception is the caller's to see: a loop that cannot go on must not look alive.
    A cancellation holds even where the pass lost it: psycopg's pool is known to swallow one that meets it while it connects.
    Each wait differs by up to a tenth, so that processes started together drift apart. A pass under way is never cut short by ``stop``.
    """
    while stop is None or not stop.is_set():
        bells = [event for event in (stop, wake) if event is not None]
        if wake is not None:
            wake.clear()  # before the pass: what rings during it wants one more
        try:
            await run_once()
        except expected as error:
            log.warning("a pass failed and will be repeated", loop=name, error=f"{type(error).__name__}: {error}", seconds=interval)
            bells = [] if stop is None else [stop]
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError
        await first_of(bells, jittered(interval))


def jittered(interval: float) -> float:
    """``interval`` seconds, a tenth more or less."""
    return interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 — spreads load, guards nothing


async def first_of(events: list[asyncio.Event], seconds: float) -> None:
    """Return when one of ``events`` is set, or after ``seconds``."""
    if any(event.is_set() for event in events):
        return
    if not events:
        await asyncio.sleep(seconds)
        return
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
