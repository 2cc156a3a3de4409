"""How much the worker asks for: its slots, and a prefetch that follows its pace."""

import asyncio
import math
import time
from collections.abc import Callable

from taskrunner.worker.execute import Executor
from taskrunner.worker.outbox import Outbox

TICK = 0.02  # seconds between two looks, while there is anything to look at
FIRST = 0.005  # seconds until the first look: a burst is to find a worker that asks for enough soon
SLOW = 0.1  # seconds after which a scheduler is told that a handler runs
PATIENCE = 2.0  # seconds that a prefetched task may wait for a slot
AHEAD = 0.02  # seconds of work to have at hand
MOST = 4_000


class Flow:
    """Looks at the executor while it is busy; at idle no timer runs. ``wake`` is called when there is something to say."""

    def __init__(self, *, executor: Executor, outbox: Outbox, wake: Callable[[], None]) -> None:
        self._executor = executor
        self._outbox = outbox
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._finished = 0
        self._since = 0.0
        self._prefetch = 0

    def capacity(self) -> tuple[int, int]:
        """Slots and prefetch: what may be out here at once."""
        return (0, 0) if self._executor.stopped else (self._executor.slots, self._prefetch)

    def touch(self) -> None:
        """Tasks have come: begin to look."""
        if self._timer is None:
            self._finished, self._since = self._outbox.finished, time.monotonic()
            self._timer = self._loop.call_later(FIRST, self._look)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = time.monotonic()
        done, seconds = self._outbox.finished - self._finished, now - self._since
        self._finished, self._since = self._outbox.finished, now
        before, self._prefetch = self._prefetch, prefetch_for(done / seconds)
        self._executor.give_back(now - PATIENCE)
        if self._prefetch != before or self._executor.floor.has_untold(now - SLOW):
            self._wake()
        busy = done or self._prefetch or self._executor.waiting or self._executor.floor.has_untold(now)
        self._timer = self._loop.call_later(TICK, self._look) if busy else None


def prefetch_for(rate: float) -> int:
    """Tasks to have at hand for a worker that finishes ``rate`` a second: a power of two, so that it seldom changes."""
    wanted = rate * AHEAD
    return 0 if wanted < 8 else min(MOST, int(2 ** round(math.log2(wanted))))
