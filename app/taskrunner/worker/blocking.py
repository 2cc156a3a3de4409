"""Handlers that block: plain functions in threads, and the threads that wait for children."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextvars import Context as Variables
from functools import partial

import structlog

from taskrunner.sdk import Isolation
from taskrunner.wire.pb.taskrunner.v1 import Outcome
from taskrunner.worker.attempts import Running, context_of
from taskrunner.worker.calls import Ending, call_plain, failed
from taskrunner.worker.children import Children

log = structlog.get_logger()
End = Callable[[Running, Ending], None]
Report = Callable[[bytes, bytes, float, str], None]


class Blocking:
    """At most ``most`` daemon threads, started on demand and kept.

    ``concurrent.futures`` joins its threads at exit, so a handler that never returns would keep the process from ending; a daemon does not.
    """

    def __init__(self, most: int, children: Children) -> None:
        self._most = most
        self._children = children
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[Running, End, Report] | None] = queue.SimpleQueue()
        self._count = 0
        self._jobs = 0  # that have not ended, as the loop knows
        self._short = False  # the last thread that was wanted could not be started

    def start(self, one: Running, end: End, report: Report) -> None:
        """Run the attempt's handler in a thread, and call ``end`` on the loop when it is done; ``report`` in the thread meanwhile."""
        if one.kind.handler.isolation is Isolation.PROCESS:
            one.kill = partial(self._children.kill, one)
            self._children.prune_later()
        self._jobs += 1
        if self._count < min(self._jobs, self._most):
            trouble = self._hire()
            if trouble and not self._count:
                self._ended(end, one, Ending(Outcome.RETRY, error=f"a thread could not be started: {trouble}"))
                return
        self._queue.put((one, end, report))

    def close(self) -> None:
        """Kill the children and end the threads that are idle; the others end with their handler. May be called again."""
        self._children.close()
        for _ in range(self._count):
            self._queue.put(None)

    def _hire(self) -> str:
        """Start a thread. Returns what kept it from that, a limit of processes, say: the threads that there are do its work, too."""
        try:
            threading.Thread(target=self._work, name=f"handler-{self._count + 1}", daemon=True).start()
        except RuntimeError as error:
            if not self._short:
                log.warning("a thread could not be started; handlers wait for those that there are", threads=self._count, error=str(error))
            self._short = True
            return str(error)
        self._count += 1
        self._short = False
        return ""

    def _ended(self, end: End, one: Running, ending: Ending) -> None:
        self._jobs -= 1
        end(one, ending)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            self._do(*job)
            del job  # an idle thread holds nobody's payload

    def _do(self, one: Running, end: End, report: Report) -> None:
        handler = one.kind.handler
        try:
            if one.asked is not None:
                ending = Ending(Outcome.RETRY, error="stopped before it began")
            elif handler.isolation is Isolation.PROCESS:
                ending = self._children.run(one, report)
            else:
                ending = Variables().run(call_plain, handler, context_of(one.entry, report, one.should_stop), one.entry[7])
        except BaseException as error:  # noqa: BLE001 — whatever it is, the attempt ends and the thread goes on: it is a slot
            ending = failed(error)
        try:
            self._loop.call_soon_threadsafe(self._ended, end, one, ending)
        except RuntimeError:
            return  # the loop is closed: the worker has gone on without this handler
