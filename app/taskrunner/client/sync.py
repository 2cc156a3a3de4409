"""The same client for programs without asyncio: its loop runs in a thread of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar, Unpack

from taskrunner.client.client import Client, Id
from taskrunner.client.values import Bulk, Count, Event, Failures, Filters, Lot, Made, Page, Scope, Task, TaskFields, Verb, Worker

R = TypeVar("R")


class SyncClient:
    """:class:`Client` without ``await``: same arguments, same calls, same errors. Threads may share one.

    The thread starts with the first call. A process that forks afterwards makes a new client in the child.
    """

    def __init__(self, base_url: str | None = None, *, token: str | None = None, timeout: float = 30.0, retries: int = 5) -> None:
        self._client = Client(base_url, token=token, timeout=timeout, retries=retries)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread. A later call starts them again."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._client.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def create(self, task_type: str, payload: Any = None, *, idempotency_key: str | None = None, **fields: Unpack[TaskFields]) -> Task:
        """See :meth:`Client.create`."""
        return self._run(self._client.create(task_type, payload, idempotency_key=idempotency_key, **fields))

    def create_batch(self, tasks: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None) -> list[Made]:
        """See :meth:`Client.create_batch`."""
        return self._run(self._client.create_batch(tasks, idempotency_key=idempotency_key))

    def import_lines(self, lines: Iterable[bytes]) -> Iterator[Made]:
        """See :meth:`Client.import_lines`. ``lines`` is read in a thread, a chunk when there is room for it."""
        return self._each(self._client.import_lines(_awaited(lines)))

    def get(self, task: Id) -> Task:
        """See :meth:`Client.get`."""
        return self._run(self._client.get(task))

    def wait(self, task: Id, timeout: float | None = None) -> Task:
        """See :meth:`Client.wait`."""
        return self._run(self._client.wait(task, timeout))

    def list(self, *, page: int = 100, **filters: Unpack[Filters]) -> Iterator[Task]:
        """See :meth:`Client.list`."""
        return self._each(self._client.list(page=page, **filters))

    def cancel(self, task: Id) -> Task:
        """See :meth:`Client.cancel`."""
        return self._run(self._client.cancel(task))

    def retry(self, task: Id) -> Task:
        """See :meth:`Client.retry`."""
        return self._run(self._client.retry(task))

    def run_now(self, task: Id) -> Task:
        """See :meth:`Client.run_now`."""
        return self._run(self._client.run_now(task))

    def page(self, cursor: str | None = None, *, limit: int = 100, **filters: Unpack[Filters]) -> Page:
        """See :meth:`Client.page`."""
        return self._run(self._client.page(cursor, limit=limit, **filters))

    def count(self, **filters: Unpack[Filters]) -> Count:
        """See :meth:`Client.count`."""
        return self._run(self._client.count(**filters))

    def bulk(self, verb: Verb, **filters: Unpack[Filters]) -> Bulk:
        """See :meth:`Client.bulk`."""
        return self._run(self._client.bulk(verb, **filters))

    def bulk_state(self, operation: Id) -> Bulk:
        """See :meth:`Client.bulk_state`."""
        return self._run(self._client.bulk_state(operation))

    def errors(self, **window: Any) -> Sequence[Failures]:
        """See :meth:`Client.errors`."""
        return self._run(self._client.errors(**window))

    def queues(self) -> Sequence[Lot]:
        """See :meth:`Client.queues`."""
        return self._run(self._client.queues())

    def types(self) -> Sequence[Lot]:
        """See :meth:`Client.types`."""
        return self._run(self._client.types())

    def pause(self, scope: Scope, name: str) -> None:
        """See :meth:`Client.pause`."""
        self._run(self._client.pause(scope, name))

    def resume(self, scope: Scope, name: str) -> None:
        """See :meth:`Client.resume`."""
        self._run(self._client.resume(scope, name))

    def workers(self) -> Sequence[Worker]:
        """See :meth:`Client.workers`."""
        return self._run(self._client.workers())

    def drain(self, session: Id) -> Worker:
        """See :meth:`Client.drain`."""
        return self._run(self._client.drain(session))

    def stats(self, **window: Any) -> dict[str, Any]:
        """See :meth:`Client.stats`."""
        return self._run(self._client.stats(**window))

    def ready(self) -> None:
        """See :meth:`Client.ready`."""
        self._run(self._client.ready())

    def events(self, *, last_event_id: str | None = None, **filters: Any) -> Iterator[Event]:
        """See :meth:`Client.events`."""
        return self._each(self._client.events(last_event_id=last_event_id, **filters))

    def _run(self, call: Coroutine[Any, Any, R]) -> R:
        future = asyncio.run_coroutine_threadsafe(call, self._started())
        try:
            return future.result()
        except BaseException:  # Ctrl-C: the call is not to go on behind our back
            future.cancel()
            raise

    def _each(self, items: AsyncIterator[R]) -> Iterator[R]:
        try:
            while True:
                try:
                    yield self._run(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            if self._loop is not None:
                self._run(_close(items))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="taskrunner client", daemon=True)
                self._thread.start()
            return self._loop


async def _next(items: AsyncIterator[R]) -> R:
    return await anext(items)


async def _close(items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()


async def _awaited(lines: Iterable[bytes]) -> AsyncIterator[bytes]:
    iterator, end = iter(lines), b""
    while (chunk := await asyncio.to_thread(next, iterator, end)) is not end:
        yield chunk
