"""Requests that wait for a task to finish: one question to the database for all of them, and none while nobody waits."""

import asyncio
from uuid import UUID

from taskrunner.domain.errors import Unavailable
from taskrunner.store.tasks import Store

TICK = 0.05
SHARE = 4  # of the time of one question is slept between two, so that waiting never takes more than a fifth of a connection
ID = 16  # bytes


class Hub:
    """Knows who waits for which task. Somebody must :meth:`run` it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[bytes, set[asyncio.Future[None]]] = {}
        self._someone = asyncio.Event()
        self.closed = False

    async def wait(self, id: UUID, seconds: float) -> None:  # noqa: A002 — the column's name
        """Returns when the task was settled or is gone, after ``seconds``, or when the service stops: look which."""
        if self.closed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id.bytes, set()).add(waiter)
        self._someone.set()
        try:
            await asyncio.wait([waiter], timeout=seconds)
        finally:
            waiters = self._waiting.get(id.bytes, set())
            waiters.discard(waiter)
            if not waiters:
                self._waiting.pop(id.bytes, None)

    def settled(self, ids: bytes) -> None:
        """An attempt of each of these was settled by this process: whoever waits for one looks at once. ``ids`` is a column."""
        if self._waiting:
            for id in self._waiting.keys() & {ids[at : at + ID] for at in range(0, len(ids), ID)}:  # noqa: A001 — the column's name
                self._release(id)

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
            ids = await self._store.finished(b"".join(self._waiting))
        except Unavailable:
            return
        for at in range(0, len(ids), ID):
            self._release(ids[at : at + ID])

    def close(self) -> None:
        """Everyone goes on at once, with the task as it is; later waits do not wait."""
        self.closed = True
        for id in list(self._waiting):  # noqa: A001 — the column's name
            self._release(id)

    def _release(self, id: bytes) -> None:  # noqa: A002 — the column's name
        for waiter in self._waiting.pop(id, set()):
            if not waiter.done():
                waiter.set_result(None)
