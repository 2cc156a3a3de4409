"""Answers that are dear, and may be a little old."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")
SHARE = 20  # an answer that took t seconds is given again for SHARE * t


class Kept(Generic[T]):
    """An answer that costs as much as there are tasks: asked for once, however many want it, and kept for a while."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()
        self._answer: list[T] = []
        self._until = 0.0

    async def get(self) -> T:
        """The answer. Raises what the question raises."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            began = loop.time()
            if not self._answer or began >= self._until:
                self._answer = [await self._ask()]
                now = loop.time()
                self._until = now + SHARE * (now - began)
            return self._answer[0]
