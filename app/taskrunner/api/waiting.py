"""Requests that wait for a task to finish: one question to the database for all of them, and none while nobody waits."""

import asyncio
from uuid import UUID

from taskrunner.domain.errors import Unavailable
from taskrunner.store.tasks import Store

TICK = 0.05
SHARE = 4  # of the time of one question is slept between two, so that waiting never takes more than a fifth of a connection


class Hub:
    """Knows who waits for which task. Somebody must :meth:`run` it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[UUID, set[asyncio.Future[None]]] = {}
        self._someone = asyncio.Event()
        self._closed = False

    async def wait(self, id: UUID, seconds: float) -> None:  # noqa: A002 — the column's name
        """Returns when the task is finished or gone, after ``seconds``, or when the service stops: look which."""
        if self._closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id, set()).add(waiter)
        self._someone.set()
        try:
            await asyncio.wait([waiter], timeout=seconds)
        finally:
            waiters = self._waiting.get(id, set())
            waiters.discard(waiter)
            if not waiters:
                self._waiting.pop(id, None)

    async def run(self) -> None:
        """Asks until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._someone.wait()
            asked_at = loop.time()
            await self.run_once()
            if not self._waiting:
                self._someone.clear()
            await asyncio.sleep(max(TICK, SHARE * (loop.time() - asked_at)))

    async def run_once(self) -> None:
        """One question about everything that is waited for. A database that is away now is asked again at the next tick."""
        if not self._waiting:
            return
        try:
            finished = await self._store.finished(list(self._waiting))
        except Unavailable:
            return
        for id in finished:  # noqa: A001 — the column's name
            self._release(id)

    def close(self) -> None:
        """Everyone goes on at once, with the task as it is; later waits do not wait."""
        self._closed = True
        for id in list(self._waiting):  # noqa: A001 — the column's name
            self._release(id)

    def _release(self, id: UUID) -> None:  # noqa: A002 — the column's name
        for waiter in self._waiting.pop(id, set()):
            if not waiter.done():
                waiter.set_result(None)
