"""A client that POSTs tasks at a rate and writes down every answer."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import aiohttp
from faults.waiting import now

PATIENCE = 15.0  # seconds for an answer


class Client:
    """``acknowledged``, ``unknown`` and ``refused`` are disjoint: every number that was sent is in one of them."""

    def __init__(self, url: str, scenario: str, numbers: Iterator[int] | None = None) -> None:
        self._url = f"{url}/api/tasks"
        self._scenario = scenario
        self._numbers = numbers or itertools.count()
        self.acknowledged: dict[int, str] = {}
        self.sent_at: dict[str, float] = {}  # by id
        self.unknown: dict[int, str] = {}  # what was said instead
        self.refused: dict[int, int] = {}  # HTTP status, or 0 when nobody listened
        self.slowest = 0.0

    async def post(self, session: aiohttp.ClientSession, task_type: str = "work", **payload: Any) -> int:
        """One task; its number."""
        n, began = next(self._numbers), now()
        body = {"task_type": task_type, "payload": {"n": n, "scenario": self._scenario, "seconds": 0.02, **payload}}
        try:
            async with session.post(self._url, json=body) as answer:
                said = await answer.json(content_type=None)
                if answer.status == 201:
                    self.acknowledged[n], self.sent_at[said["id"]] = said["id"], began
                elif said.get("code") == "outcome_unknown":
                    self.unknown[n] = "outcome_unknown"
                else:
                    self.refused[n] = answer.status
        except aiohttp.ClientConnectorError:
            self.refused[n] = 0
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.unknown[n] = f"{type(error).__name__}: {error}"
        self.slowest = max(self.slowest, now() - began)
        return n

    async def post_all(self, many: int, task_type: str = "work", **payload: Any) -> list[str]:
        """So many alike, all of which must be acknowledged; their ids."""
        async with _session() as session, asyncio.TaskGroup() as group:
            posts = [group.create_task(self.post(session, task_type, **payload)) for _ in range(many)]
        return [self.acknowledged[post.result()] for post in posts]

    async def run(self, *, rate: float, seconds: float, each: float = 0.02) -> None:
        """``rate`` tasks a second for so many seconds, however slow the answers are; ``each`` takes so many seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with _session() as session, asyncio.TaskGroup() as group:
            for at in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + at / rate - loop.time()))
                group.create_task(self.post(session, seconds=each))


def _session() -> aiohttp.ClientSession:
    # A connection for each request: one that is kept may be closed by a stopping server in the moment in which it is used again.
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0), timeout=aiohttp.ClientTimeout(total=PATIENCE))
