"""Handlers that block: plain functions in threads, and the threads that wait for children."""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextvars import Context as Variables
from functools import partial

from taskrunner.sdk import Isolation
from taskrunner.worker.attempts import Running, context_of
from taskrunner.worker.calls import Ending, call_plain, failed
from taskrunner.worker.children import Children

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
        self._idle = threading.Semaphore(0)
        self._count = 0

    def start(self, one: Running, end: End, report: Report) -> None:
        """Run the attempt's handler in a thread, and call ``end`` on the loop when it is done; ``report`` in the thread meanwhile."""
        if one.kind.handler.isolation is Isolation.PROCESS:
            one.kill = partial(self._children.kill, one)
            self._children.prune_later()
        self._queue.put((one, end, report))
        if not self._idle.acquire(blocking=False) and self._count < self._most:
            self._count += 1
            threading.Thread(target=self._work, name=f"handler-{self._count}", daemon=True).start()

    def close(self) -> None:
        """Kill the children and end the threads that are idle; the others end with their handler. May be called again."""
        self._children.close()
        for _ in range(self._count):
            self._queue.put(None)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            self._do(*job)
            del job  # an idle thread holds nobody's payload
            self._idle.release()

    def _do(self, one: Running, end: End, report: Report) -> None:
        handler = one.kind.handler
        try:
            if handler.isolation is Isolation.PROCESS:
                ending = self._children.run(one, report)
            else:
                ending = Variables().run(call_plain, handler, context_of(one.entry, report, one.should_stop), one.entry[7])
        except BaseException as error:  # noqa: BLE001 — whatever it is, the attempt ends and the thread goes on: it is a slot
            ending = failed(error)
        try:
            self._loop.call_soon_threadsafe(end, one, ending)
        except RuntimeError:
            return  # the loop is closed: the worker has gone on without this handler
