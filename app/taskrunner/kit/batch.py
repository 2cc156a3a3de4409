"""Batches that form by themselves: while one is on its way, the next one fills."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Closed(Exception):
    """The batcher takes nothing more."""

    def __init__(self) -> None:
        super().__init__("the batcher is closed")


class Batcher(Generic[T]):
    """Hands what is ``put`` to ``flush`` in batches, one batch in flight at a time, in order, and without any delay of its own.

    A lone item leaves at once; under load a batch is whatever came while the one before was in flight, up to ``most`` items.
    ``room`` bounds the items that wait. Whoever wants an answer puts a future into the item, and ``flush`` resolves it: a caller
    that is cancelled while it waits loses the answer, not the item. ``flush`` handles the trouble that it expects; what it lets
    through ends ``run``, and then ``rest`` says what was never flushed.

    ``run`` belongs into the owner's task group, ``close`` into its way out::

        async with asyncio.TaskGroup() as group:
            group.create_task(batcher.run())
            ...
            batcher.close()
    """

    def __init__(self, flush: Callable[[list[T]], Awaitable[None]], *, most: int, room: int) -> None:
        self._flush = flush
        self._most = most
        self._room = room
        self._waiting: deque[T] = deque()
        self._bell = asyncio.Event()
        self._closed = False

    @property
    def full(self) -> bool:
        """True while ``put`` would be refused for want of room."""
        return len(self._waiting) >= self._room

    @property
    def first(self) -> T | None:
        """What has waited longest."""
        return self._waiting[0] if self._waiting else None

    @property
    def rest(self) -> list[T]:
        """What waits for a batch."""
        return list(self._waiting)

    def put(self, item: T) -> None:
        """Add ``item`` to the batch that fills. Raises ``asyncio.QueueFull`` without room and ``Closed`` after ``close``."""
        if self._closed:
            raise Closed
        if self.full:
            raise asyncio.QueueFull
        self._waiting.append(item)
        self._bell.set()

    def close(self) -> None:
        """Take nothing more; ``run`` flushes what waits and returns. May be called again."""
        self._closed = True
        self._bell.set()

    async def run(self) -> None:
        """Flush batches until ``close``. Cancelled, it cancels the flush in flight and leaves the rest where it is."""
        try:
            while True:
                while self._waiting:
                    batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                    await self._flush(batch)
                if self._closed:
                    return
                self._bell.clear()
                await self._bell.wait()
        finally:
            self._closed = True
