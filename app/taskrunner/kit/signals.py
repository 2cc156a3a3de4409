"""How a process is asked to stop."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

log = structlog.get_logger()

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@asynccontextmanager
async def stop_on_signals() -> AsyncIterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets. The second one ends the process at once, with 128 + its number.

    The handler only sets the event: raising in the middle of whatever runs is how tasks get lost between two statements.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    asked = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal asked
        if asked:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(128 + number)
        asked = True
        log.info("stopping", signal=number.name)
        stop.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def unless(stop: asyncio.Event) -> AsyncIterator[None]:
    """Run the body, and give it up where it stands once ``stop`` is set. What follows looks at ``stop``."""
    scope = asyncio.timeout(None)
    inside = True

    def give_up(_: object) -> None:
        if inside:
            scope.reschedule(0)

    watch = asyncio.ensure_future(stop.wait())
    watch.add_done_callback(give_up)
    try:
        async with scope:
            try:
                yield
            finally:
                inside = False
    except TimeoutError:
        if not scope.expired():
            raise
    finally:
        watch.cancel()
