"""Group commit: creates that arrive together share one commit. There is no timer and no delay: alone, a create is sent at once.

Plain creates are one insert a batch. Those with a unique key or an Idempotency-Key batch apart, because they may have to wait for others:
when one of a batch does, each is sent alone.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from taskrunner.domain.errors import BadTask, Entangled, OutcomeUnknown, TaskrunnerError, Unavailable
from taskrunner.domain.task import Answer, Created, IdempotencyKey, NewTask
from taskrunner.kit.batch import Batcher, Closed
from taskrunner.store.keyed import Request
from taskrunner.store.tasks import Store

T = TypeVar("T")
BATCH = 500
BYTES = 4 << 20  # of payloads in one statement
WAITING = 10_000
PATIENCE = 5.0  # seconds that a create waits for the database to take those before it
LONERS = 4  # connections for creates that wait for others

STOPPING = "the service is stopping: ask again, it may be another one"
BEHIND = "creates come faster than the database takes them: ask again later"
STOPPED = "the service stopped while the database was committing: look for the task before you send it again"


class _Ask(NamedTuple, Generic[T]):
    request: Request
    answer: asyncio.Future[T]
    at: float  # when it came, by the loop's clock


class Creator:
    """Takes single creates from all requests of the process. Somebody must :meth:`run` it; :meth:`close` lets it finish."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._plain: Batcher[_Ask[Created]] = Batcher(self._send, most=BATCH, room=WAITING)
        self._keyed: Batcher[_Ask[Answer]] = Batcher(self._send_keyed, most=BATCH, room=WAITING)
        self._few = asyncio.Semaphore(LONERS)
        self._loners = asyncio.TaskGroup()

    async def create(self, task: NewTask) -> Created:
        """Returns once ``task``, which has no unique key, is committed. Raises what the store raises, and Unavailable beyond WAITING."""
        return await _put(self._plain, Request(task, None))

    async def create_keyed(self, task: NewTask, key: IdempotencyKey | None) -> Answer:
        """As ``create``, or what a unique key or an Idempotency-Key leads to. Raises Conflict, KeyReused, KeyInFlight besides."""
        return await _put(self._keyed, Request(task, key))

    async def run(self) -> None:
        """Sends batches until closed and empty. Whatever ends it, nobody waits for it afterwards."""
        try:
            async with self._loners as group:
                group.create_task(self._plain.run(), name="creates")
                group.create_task(self._keyed.run(), name="keyed creates")
        finally:
            _refuse(self._plain.rest, Unavailable(STOPPING))
            _refuse(self._keyed.rest, Unavailable(STOPPING))

    def close(self) -> None:
        """Lets :meth:`run` end when nothing waits any more."""
        self._plain.close()
        self._keyed.close()

    async def _send(self, batch: list[_Ask[Created]]) -> None:
        try:
            for part in _parts(batch):
                await self._send_part(part)
        except asyncio.CancelledError:
            _refuse(batch, Unavailable(STOPPING))  # the parts that nobody has begun
            raise

    async def _send_part(self, batch: list[_Ask[Created]]) -> None:
        _shed(batch)
        try:
            while batch:
                try:
                    created = await self._store.create([ask.request.task for ask in batch])
                except BadTask as bad:  # only this one is to blame; nothing was written
                    _refuse([batch.pop(bad.index)], bad)
                else:
                    _answer(batch, created)
                    return
        except Exception as error:  # noqa: BLE001 — every request that waits hears of it, and the one that is next may fare better
            _refuse(batch, error)
        except asyncio.CancelledError:
            _refuse(batch, OutcomeUnknown(STOPPED))
            raise

    async def _send_keyed(self, batch: list[_Ask[Answer]]) -> None:
        try:
            for part in _parts(batch):
                await self._send_keyed_part(part)
        except asyncio.CancelledError:
            _refuse(batch, Unavailable(STOPPING))
            raise

    async def _send_keyed_part(self, batch: list[_Ask[Answer]]) -> None:
        _shed(batch)
        try:
            _answer(batch, await self._store.create_each([ask.request for ask in batch]) if batch else [])
        except Entangled:
            for ask in batch:
                self._loners.create_task(self._send_alone(ask), name="lone create")
        except Exception as error:  # noqa: BLE001 — as above
            _refuse(batch, error)
        except asyncio.CancelledError:
            _refuse(batch, OutcomeUnknown(STOPPED))
            raise

    async def _send_alone(self, ask: _Ask[Answer]) -> None:
        try:
            async with self._few:
                _answer([ask], await self._store.create_each([ask.request], patient=True))
        except Exception as error:  # noqa: BLE001 — as above
            _refuse([ask], error)
        except asyncio.CancelledError:
            _refuse([ask], OutcomeUnknown(STOPPED))
            raise


async def _put(batcher: Batcher[_Ask[T]], request: Request) -> T:
    loop = asyncio.get_running_loop()
    now = loop.time()
    if (first := batcher.first) is not None and now - first.at > PATIENCE:
        raise Unavailable(BEHIND)
    ask: _Ask[T] = _Ask(request, loop.create_future(), now)
    try:
        batcher.put(ask)
    except asyncio.QueueFull:
        raise Unavailable(f"{WAITING} creates are waiting for the database already: ask again later") from None
    except Closed:
        raise Unavailable(STOPPING) from None
    return await ask.answer


def _parts(batch: list[_Ask[T]]) -> Iterator[list[_Ask[T]]]:
    """The batch in pieces of about BYTES: what a statement holds, the driver copies several times."""
    if sum(len(ask.request.task.payload) for ask in batch) <= BYTES:
        yield batch
        return
    part: list[_Ask[T]] = []
    size = 0
    for ask in batch:
        part.append(ask)
        size += len(ask.request.task.payload)
        if size >= BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _shed(batch: list[_Ask[T]]) -> None:
    """Refuse those that have waited too long: nothing of them is written, and whoever sent them has given up or will try again."""
    late = asyncio.get_running_loop().time() - PATIENCE
    if batch and batch[0].at < late:
        _refuse([ask for ask in batch if ask.at < late], Unavailable(BEHIND))
        batch[:] = [ask for ask in batch if ask.at >= late]


def _answer(batch: Sequence[_Ask[T]], answers: Sequence[T | TaskrunnerError]) -> None:
    for ask, answer in zip(batch, answers, strict=True):
        if isinstance(answer, TaskrunnerError):
            _refuse([ask], answer)
        elif not ask.answer.done():
            ask.answer.set_result(answer)


def _refuse(batch: Sequence[_Ask[T]], error: Exception) -> None:
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
