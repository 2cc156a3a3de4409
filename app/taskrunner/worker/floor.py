"""The shop floor: attempts whose handler runs, their deadlines, and how each of them ends."""

import asyncio
import time
from collections.abc import Callable
from itertools import takewhile

import structlog

from taskrunner.settings import Settings
from taskrunner.wire.pb.taskrunner.v1 import Outcome
from taskrunner.worker.attempts import Running, Waiting, Why, delay_of
from taskrunner.worker.calls import Ending
from taskrunner.worker.outbox import Outbox

log = structlog.get_logger()

CANCELLED = Ending(Outcome.CANCELLED)
STOPPED = Ending(Outcome.SNOOZED, error="the worker stopped before the task was done")


class Floor:
    """Attempts that have started and are not done; each owes the outbox one outcome. ``freed`` is called when a slot is free again."""

    def __init__(self, *, settings: Settings, outbox: Outbox, freed: Callable[[], None]) -> None:
        self._settings = settings
        self._outbox = outbox
        self._freed = freed
        self._loop = asyncio.get_running_loop()
        self._bell = asyncio.Event()
        self._untold: dict[bytes, Running] = {}  # in the order of their start
        self.running: dict[bytes, Running] = {}  # by id and epoch in one
        self.lingering: set[Running] = set()  # the outcome is sent, the handler does not end: the slot is taken

    def has_untold(self, before: float) -> bool:
        """True while something runs since before that monotonic time of which no scheduler was told."""
        return bool(self._untold) and next(iter(self._untold.values())).began <= before

    def take_untold(self, before: float) -> list[Running]:
        """What runs since before that monotonic time, each attempt once: a scheduler is told of it now."""
        taken = list(takewhile(lambda one: one.began <= before, self._untold.values()))
        for one in taken:
            del self._untold[one.key]
        return taken

    def forget_told(self) -> None:
        """Tell of all that runs again: what was said on a broken stream may never have arrived."""
        self._untold = dict(self.running)

    def begin(self, entry: Waiting, began: float, task: asyncio.Task[None] | None = None) -> Running:
        """Take a slot. ``began`` is monotonic; the deadline counts from it."""
        one = Running(entry, began, task)
        self.running[one.key] = self._untold[one.key] = one
        one.timer = self._loop.call_later(max(0.0, one.timeout - (time.monotonic() - began)), self.ask, one, Why.TIMEOUT)
        return one

    def end(self, one: Running, ending: Ending) -> None:
        """The handler is done, for whatever reason: its slot is free."""
        if one.reported:
            self.lingering.discard(one)
            log.info("a handler ended after its outcome was sent", **one.log_fields())
        else:
            self._report(one, _as_asked(one, ending))
        self._freed()

    def ask(self, one: Running, why: Why) -> None:
        """Ask the handler to stop. The outcome follows when it has, at the latest after the cancel grace; at once where waiting is idle."""
        if one.asked is not None and why is not Why.LOST:
            return
        first, one.asked = one.asked is None, why
        one.clear_timer()
        if first and one.task is not None:
            one.task.cancel()
        elif first and one.kill is not None:
            one.kill(why)
        if why is Why.LOST or (why is Why.TIMEOUT and one.in_thread):
            self._overdue(one)
        else:
            one.timer = self._loop.call_later(self._settings.cancel_grace, self._overdue, one)

    def abandon(self) -> None:
        """Report what still runs as it was asked to end, and wait for it no longer."""
        for one in list(self.running.values()):
            self._overdue(one)

    async def idle(self) -> None:
        """Return once no outcome is owed."""
        while self.running:
            self._bell.clear()
            await self._bell.wait()

    def settle(self, entry: Waiting, ending: Ending, seconds: float) -> None:
        """Send how an attempt ended, ``seconds`` after its start."""
        if ending.outcome is Outcome.RETRY and ending.delay is None:
            ending = ending._replace(delay=delay_of(entry, self._settings))
        entry[0].took.append(seconds)
        self._outbox.add(entry[1], entry[2], ending, seconds)

    def _report(self, one: Running, ending: Ending) -> None:
        one.clear_timer()
        one.reported = True
        del self.running[one.key]
        self._untold.pop(one.key, None)
        if one.asked is not Why.LOST:
            self.settle(one.entry, ending, time.monotonic() - one.began)
        self._bell.set()

    def _overdue(self, one: Running) -> None:
        self.lingering.add(one)
        self._report(one, _as_asked(one, STOPPED))
        log.info("a handler was asked to stop and still runs; its slot stays taken", **one.log_fields())


def _as_asked(one: Running, ending: Ending) -> Ending:
    """What becomes of an attempt that was asked to stop: one that finished all the same has won."""
    if one.asked is None or (ending.outcome is Outcome.COMPLETED and not one.noticed):
        return ending
    if one.asked is Why.TIMEOUT:
        return Ending(Outcome.RETRY, error=f"timed out after {one.timeout:g} s")
    return CANCELLED if one.asked is Why.CANCEL else STOPPED
