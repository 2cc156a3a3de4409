"""How much the worker asks for: its slots, and a prefetch that follows its pace.

Its pace is what it finishes in a while; or, where it had to wait for more, what it finished of what it had. So the first tasks of a burst
show how quick it is, and the outcomes that say so take the answer along.
"""

import asyncio
import math
import time
from collections.abc import Callable

from taskrunner.domain.lanes import BATCH
from taskrunner.worker.execute import Executor
from taskrunner.worker.outbox import Outbox

TICK = 0.02  # seconds between two looks, while there is anything to look at
FIRST = 0.005  # seconds until the first look: a burst is to find a worker that asks for enough soon
SLOW = 0.1  # seconds after which a scheduler is told that a handler runs
PATIENCE = 2.0  # seconds that a prefetched task may wait for a slot
AHEAD = 0.02  # seconds of work to have at hand
MOST = 4_000
SHOWING = 50  # tasks worked off in one go, from nothing at hand to nothing at hand, that show a pace
SPRINT = 2_048  # most that these make it ask for: two claims on their way, and two at hand
STALE = 0.1  # seconds after which that pace is forgotten, waiting or at work


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
        self._sprint = 0  # the prefetch that the last go has shown
        self._idle = True  # nothing is at hand
        self._turned, self._before = 0.0, 0  # when that changed, and what was finished by then

    def capacity(self) -> tuple[int, int]:
        """Slots and prefetch: what may be out here at once."""
        return (0, 0) if self._executor.stopped else (self._executor.slots, self._prefetch)

    def touch(self) -> None:
        """Tasks are here, and are about to be accepted: begin to look."""
        if self._idle:
            self._idle, self._turned, self._before = False, time.monotonic(), self._outbox.finished
        if self._timer is None:
            self._finished, self._since = self._outbox.finished, time.monotonic()
            self._timer = self._loop.call_later(FIRST, self._look)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()

    def note_end(self) -> None:
        """If nothing is at hand any more, see how long what was there has taken: that is the worker's pace."""
        if self._idle or not self._executor.idle:
            return
        now = time.monotonic()
        done, seconds = self._outbox.finished - self._before, now - self._turned
        self._idle, self._turned = True, now
        self._sprint = min(SPRINT, prefetch_for(done / max(seconds, 1e-6))) if done >= SHOWING else 0
        self._prefetch = max(self._prefetch, self._sprint)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._turned > STALE:
            self._sprint = 0
        done, seconds = self._outbox.finished - self._finished, now - self._since
        self._finished, self._since = self._outbox.finished, now
        before, self._prefetch = self._prefetch, max(self._sprint, prefetch_for(done / seconds))
        self._executor.give_back(now - PATIENCE)
        if self._prefetch != before or self._executor.floor.has_untold(now - SLOW):
            self._wake()
        busy = done or self._prefetch or self._executor.waiting or self._executor.floor.has_untold(now)
        self._timer = self._loop.call_later(TICK, self._look) if busy else None


def prefetch_for(rate: float) -> int:
    """Tasks to have at hand for a worker that finishes ``rate`` a second: a power of two, so that it seldom changes.

    Where that is more than a claim brings, as much again is to be on its way, by two claims at once.
    """
    wanted = rate * AHEAD
    prefetch = 0 if wanted < 8 else int(2 ** round(math.log2(wanted)))
    return min(MOST, 2 * prefetch if prefetch > BATCH else prefetch)
