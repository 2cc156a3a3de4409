"""Group commit: creates that arrive together share one statement and one commit.

One batch is in flight; the next one fills meanwhile. There is no timer and no delay: alone, a create is sent at once.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from taskrunner.domain.errors import BadTask, OutcomeUnknown, TaskrunnerError, Unavailable
from taskrunner.domain.task import Created, NewTask
from taskrunner.store.tasks import Store

BATCH = 500
WAITING = 10_000


class _Ask(NamedTuple):
    task: NewTask
    answer: asyncio.Future[Created]


class Creator:
    """Takes single creates from all requests of the process. Somebody must :meth:`run` it; :meth:`close` lets it finish."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asks: list[_Ask] = []
        self._wake = asyncio.Event()
        self._closing = False

    async def create(self, task: NewTask) -> Created:
        """Returns once ``task`` is committed. Raises what the store raises, and Unavailable when too many wait already."""
        if len(self._asks) >= WAITING:
            raise Unavailable(f"{WAITING} creates are waiting for the database already: ask again later")
        ask = _Ask(task, asyncio.get_running_loop().create_future())
        self._asks.append(ask)
        self._wake.set()
        return await ask.answer

    async def run(self) -> None:
        """Sends batches until closed and empty."""
        while self._asks or not self._closing:
            await self._wake.wait()
            self._wake.clear()
            while self._asks:
                batch, self._asks = self._asks[:BATCH], self._asks[BATCH:]
                await self._send(batch)

    def close(self) -> None:
        """Lets :meth:`run` end when nothing waits any more."""
        self._closing = True
        self._wake.set()

    async def _send(self, batch: list[_Ask]) -> None:
        try:
            while batch:
                try:
                    created = await self._store.create([ask.task for ask in batch])
                except BadTask as bad:  # only this one is to blame; nothing was written
                    _refuse([batch.pop(bad.index)], bad)
                else:
                    _answer(batch, created)
                    return
        except Exception as error:  # noqa: BLE001 — every request that waits hears of it, and the one that is next may fare better
            _refuse(batch, error)
        except asyncio.CancelledError:
            _refuse(
                batch, OutcomeUnknown("the service stopped while the database was committing: look for the task before you send it again")
            )
            raise


def _answer(batch: Sequence[_Ask], created: Sequence[Created]) -> None:
    for ask, row in zip(batch, created, strict=True):
        if not ask.answer.done():
            ask.answer.set_result(row)


def _refuse(batch: Sequence[_Ask], error: Exception) -> None:
    """One exception each: a shared one would collect the traceback of every request."""
    for ask in batch:
        if not ask.answer.done():
            ask.answer.set_exception(_copy(error))


def _copy(error: Exception) -> Exception:
    match error:
        case BadTask():
            return BadTask(0, str(error))
        case TaskrunnerError():
            return type(error)(str(error))
        case _:
            return error
