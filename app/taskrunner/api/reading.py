"""Reads by id that arrive together share one statement, as creates do: ten thousand waiters that are woken at once ask twenty times."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from taskrunner.domain.errors import TaskrunnerError, Unavailable
from taskrunner.domain.task import FailedAttempt, Task
from taskrunner.kit.batch import Batcher, Closed
from taskrunner.store.tasks import Store

BATCH = 500
WAITING = 100_000
STOPPING = "the service is stopping: ask again, it may be another one"


class Found(NamedTuple):
    """A task and those of its attempts that failed, oldest first."""

    task: Task
    attempts: list[FailedAttempt]


class _Ask(NamedTuple):
    id: UUID
    answer: asyncio.Future[Found | None]


class Reader:
    """Reads tasks for all requests of the process. Somebody must :meth:`run` it; :meth:`close` lets it finish."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asks: Batcher[_Ask] = Batcher(self._read, most=BATCH, room=WAITING)

    async def get(self, id: UUID) -> Found | None:  # noqa: A002 — the column's name
        """The task, wherever it is in its life. Raises Unavailable while the database is away."""
        ask = _Ask(id, asyncio.get_running_loop().create_future())
        try:
            self._asks.put(ask)
        except asyncio.QueueFull:
            raise Unavailable(f"{WAITING} reads are waiting for the database already: ask again later") from None
        except Closed:
            raise Unavailable(STOPPING) from None
        return await ask.answer

    async def run(self) -> None:
        """Read, until closed. Whatever ends it, nobody waits for it afterwards."""
        try:
            await self._asks.run()
        finally:
            _refuse(self._asks.rest, Unavailable(STOPPING))

    def close(self) -> None:
        """Take nothing more; what waits is answered."""
        self._asks.close()

    async def _read(self, asks: list[_Ask]) -> None:
        try:
            found = await self._found([*{ask.id for ask in asks}])
        except Exception as error:  # noqa: BLE001 — every request that waits hears of it, and the next batch may fare better
            _refuse(asks, error)
            return
        except BaseException:
            _refuse(asks, Unavailable(STOPPING))
            raise
        for ask in asks:
            if not ask.answer.done():
                ask.answer.set_result(found.get(ask.id))

    async def _found(self, ids: list[UUID]) -> dict[UUID, Found]:
        tasks = await self._store.get_many(ids)
        tried = [task.id for task in tasks if task.attempt]
        attempts = await self._store.attempts(tried) if tried else {}
        return {task.id: Found(task, attempts.get(task.id, [])) for task in tasks}


def _refuse(asks: Iterable[_Ask], error: Exception) -> None:
    """One exception each: a shared one would collect the traceback of every request."""
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_exception(type(error)(str(error)) if isinstance(error, TaskrunnerError) else _fault(error))


def _fault(error: Exception) -> Exception:
    """What we did not expect: the log shows where it was."""
    fault = RuntimeError("tasks could not be read")
    fault.__cause__ = error
    return fault
