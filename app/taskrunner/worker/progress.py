"""What handlers say of themselves on the way: gathered, and sent at most every half second, the last word of each."""

import asyncio
import math
import struct
import threading
import time
from collections.abc import Callable, Container

from taskrunner.wire.columns import ID
from taskrunner.wire.pb.taskrunner.v1 import Progress
from taskrunner.worker.calls import MOST_MESSAGE, clean

PAUSE = 0.5  # seconds between two messages


class Reporter:
    """``report`` may be called from any thread, everything else on the loop. ``wake`` is called when there is something to say."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._news: dict[bytes, tuple[float, str]] = {}  # by id and epoch in one
        self._next = 0.0  # monotonic: when a message may be sent again
        self._timer: asyncio.TimerHandle | None = None

    def report(self, id_: bytes, epoch: bytes, fraction: float, message: str) -> None:
        """The attempt is that far (0 to 1), and says so."""
        with self._lock:
            first = not self._news
            self._news[id_ + epoch] = (fraction, clean(message, MOST_MESSAGE))
        if first:
            try:
                self._loop.call_soon_threadsafe(self._arm)
            except RuntimeError:
                return  # the loop is closed: the worker has gone on without this handler

    def _arm(self) -> None:
        if self._timer is None:
            pause = max(0.0, self._next - time.monotonic())
            self._timer = self._loop.call_later(math.ceil(pause * 1000) / 1000, self._ring)  # uvloop rounds, and early would be in vain

    def _ring(self) -> None:
        self._timer = None
        self._wake()

    def take(self, running: Container[bytes]) -> Progress | None:
        """What is to be said now: all of it when the pause is over, and always of attempts that do not run any more."""
        if not self._news:
            return None
        now = time.monotonic()
        with self._lock:
            told = [key for key in self._news if now >= self._next or key not in running]
            news = [self._news.pop(key) for key in told]
            more = bool(self._news)
        if more:
            self._arm()  # only the first of them has: whoever made us look now, and if the timer did, a little too early
        if not told:
            return None
        if now >= self._next:
            self._next = now + PAUSE
        return Progress(
            ids=b"".join(key[:ID] for key in told),
            epochs=b"".join(key[ID:] for key in told),
            fractions=struct.pack(f">{len(news)}f", *(fraction for fraction, _ in news)),
            messages=[message for _, message in news],
        )
