"""Starts attempts: the hot path.

An async handler costs neither an asyncio.Task nor a timer while it does not suspend. A *runner* is one task that takes waiting attempts
one after the other and drives each handler's coroutine inline. The first time that a handler suspends, the runner passes the baton to a
successor and becomes the task of that one handler, so ``asyncio.current_task()``, ``asyncio.timeout`` and cancellation are what they always
are. A handler that leaves context variables behind ends its runner too: the successor begins with an empty context.
"""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Generator, Iterable
from contextvars import Context as Variables
from typing import Any

from taskrunner.kit.log import ABOUT
from taskrunner.sdk import Isolation
from taskrunner.settings import Settings
from taskrunner.wire.pb.taskrunner.v1 import Outcome
from taskrunner.worker.attempts import Running, Waiting, Why, context_of
from taskrunner.worker.blocking import Blocking
from taskrunner.worker.calls import Ending, failed, read_payload, succeeded
from taskrunner.worker.floor import CANCELLED, Floor
from taskrunner.worker.outbox import Outbox
from taskrunner.worker.progress import Reporter
from taskrunner.worker.runtimes import RunTimes

SLICE = 0.005  # seconds of inline work before the loop gets its turn
MOST_UNCONFIRMED = 20_000  # outcomes; beyond it nothing is started

RELEASED = Ending(Outcome.RELEASED)


class Executor:
    """Starts what waits while it may. Every attempt that it was given ends in the outbox, unless it was lost."""

    def __init__(self, *, settings: Settings, group: asyncio.TaskGroup, outbox: Outbox, blocking: Blocking, reporter: Reporter) -> None:
        self._report = reporter.report
        self._slots = settings.slots
        self._group = group
        self._outbox = outbox
        self._blocking = blocking
        self._waiting: deque[Waiting] = deque()
        self._runner = False  # one runs inline, or is about to
        self.stopped = False  # nothing is started any more
        self.floor = Floor(settings=settings, outbox=outbox, freed=self._on_freed)
        self.trusted_until = 0.0  # monotonic; past it nothing is started
        self.times = RunTimes()

    @property
    def waiting(self) -> int:
        """Attempts that have not started."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """True while nothing waits or runs."""
        return not self._waiting and not self.floor.running

    @property
    def slots(self) -> int:
        """Slots that handlers which do not end have left over."""
        return self._slots - len(self.floor.lingering)

    def held(self) -> tuple[list[bytes], list[bytes]]:
        """Ids and epochs of all that waits or runs."""
        waiting, running = self._waiting, self.floor.running.values()
        ids = [entry[1] for entry in waiting] + [one.id for one in running]
        return ids, [entry[2] for entry in waiting] + [one.epoch for one in running]

    def accept(self, entries: Iterable[Waiting]) -> None:
        """Take attempts in."""
        self._waiting.extend(entries)
        if self.stopped:
            self.give_back(float("inf"))
        self.pump()

    def pump(self) -> None:
        """Start what may start. To be called whenever there is a slot, room for outcomes or trust in the lease again."""
        if not self._runner and self._may_start(time.monotonic()):
            self._runner = True
            variables = Variables()
            self._group.create_task(self._run(variables), name="runner", context=variables)

    def give_back(self, before: float) -> None:
        """Release what has waited since before that monotonic time, so that another worker can take it."""
        while self._waiting and self._waiting[0][0].arrived <= before:
            entry = self._waiting.popleft()
            self._outbox.add(entry[1], entry[2], RELEASED, 0)

    def cancel(self, asked: set[bytes]) -> None:
        """Cancel attempts by key (id and epoch in one). Unknown ones have ended already."""
        for entry in self._pick(asked):
            self._outbox.add(entry[1], entry[2], CANCELLED, 0)
        self._ask(asked, Why.CANCEL)

    def lose(self, lost: set[bytes]) -> None:
        """Stop attempts that are no longer ours; nobody is told how they end."""
        self._pick(lost)
        self._ask(lost, Why.LOST)

    def clear(self) -> None:
        """The session is over: nothing here is ours any more."""
        self._waiting.clear()
        self._ask(set(self.floor.running), Why.LOST)

    def stop(self) -> None:
        """Start nothing more and give back what waits."""
        self.stopped = True
        self.give_back(float("inf"))

    def interrupt(self) -> None:
        """Cancel what runs: the worker's grace is over."""
        self._ask(set(self.floor.running), Why.STOP)

    def _ask(self, asked: set[bytes], why: Why) -> None:
        for key in asked:
            if one := self.floor.running.get(key):
                self.floor.ask(one, why)

    def _pick(self, wanted: set[bytes]) -> list[Waiting]:
        """Take those out that wait."""
        picked = [entry for entry in self._waiting if entry[1] + entry[2] in wanted]
        if picked:
            self._waiting = deque(entry for entry in self._waiting if entry[1] + entry[2] not in wanted)
        return picked

    def _on_freed(self) -> None:
        self._outbox.wake()  # capacity may have grown
        self.pump()

    def _may_start(self, now: float) -> bool:
        floor = self.floor
        room = len(floor.running) + len(floor.lingering) < self._slots and self._outbox.size < MOST_UNCONFIRMED
        return bool(self._waiting) and room and now < self.trusted_until and not self.stopped

    async def _run(self, variables: Variables) -> None:
        suspended = None
        try:
            suspended = await self._run_inline(variables)
        finally:
            self._runner = False
            self.pump()
        if suspended is not None:
            await self._see_through(*suspended)

    async def _run_inline(self, variables: Variables) -> tuple[Running, Coroutine[Any, Any, Any], Any] | None:
        """Run handlers until one suspends, or nothing may start any more, or the runner is worn out."""
        me, tell = asyncio.current_task(), ABOUT.set
        now = time.monotonic()
        slice_ends = now + SLICE
        while self._may_start(now):
            entry = self._waiting.popleft()
            handler = entry[0].handler
            if handler.isolation is not Isolation.LOOP:
                self._blocking.start(self.floor.begin(entry, now), self.floor.end, self._report)
                continue
            began = now
            try:
                ctx = context_of(entry, self._report)
                tell(ctx)
                coroutine = handler.function(ctx, read_payload(handler, entry[7]))
                pending = coroutine.send(None)
            except StopIteration as stop:
                now = time.monotonic()
                if stop.value is None:
                    entry[0].took.append(now - began)
                    self._outbox.completed(entry[1], entry[2], b"", now - began)
                else:
                    self.floor.settle(entry, succeeded(stop.value), now - began)
            except BaseException as error:  # noqa: BLE001 — sys.exit() in a handler ends the attempt, not the worker
                now = time.monotonic()
                self.floor.settle(entry, failed(error), now - began)
            else:
                return self.floor.begin(entry, began, me), coroutine, pending
            if len(variables) > 1 or (me is not None and me.cancelling()):
                return None  # the next handler must find neither its variables (but for ABOUT) nor its cancellation
            if now > slice_ends:
                await asyncio.sleep(0)
                now = time.monotonic()
                slice_ends = now + SLICE
        return None

    async def _see_through(self, one: Running, coroutine: Coroutine[Any, Any, Any], pending: Any) -> None:
        try:
            ending = succeeded(await _Rest(coroutine, pending))
        except GeneratorExit:  # the loop is gone, and with it everybody who could be told
            raise
        except BaseException as error:  # noqa: BLE001 — as above; whether a cancellation was ours, the floor knows
            ending = failed(error)
        self.floor.end(one, ending)


class _Rest:
    """What is left of a coroutine that has yielded ``pending``: awaiting it hands that to the loop and goes on."""

    __slots__ = ("coroutine", "pending")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], pending: Any) -> None:
        self.coroutine = coroutine
        self.pending = pending

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, pending = self.coroutine, self.pending
        while True:
            thrown: BaseException | None = None
            try:
                sent = yield pending
            except BaseException as error:  # noqa: BLE001 — a cancellation, say: it is the coroutine's to see
                thrown = error
            try:
                pending = coroutine.send(sent) if thrown is None else coroutine.throw(thrown)
            except StopIteration as stop:
                return stop.value
