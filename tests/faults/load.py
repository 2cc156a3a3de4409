"""A client that POSTs tasks at a rate and writes down every answer."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
from faults.waiting import now

PATIENCE = 15.0  # seconds for an answer


class Client:
    """``acknowledged``, ``unknown`` and ``refused`` are disjoint: every number that was sent is in one of them."""

    def __init__(self, url: str, scenario: str, numbers: Iterator[int] | None = None, *, others: Sequence[str] = ()) -> None:
        self.turn_to(url, *others)
        self._scenario = scenario
        self._numbers = numbers or itertools.count()
        self.acknowledged: dict[int, str] = {}
        self.sent_at: dict[str, float] = {}  # by id
        self.unknown: dict[int, str] = {}  # what was said instead
        self.refused: dict[int, int] = {}  # HTTP status, or 0 when nobody listened
        self.slowest = 0.0
        self.repeated = 0  # requests that were sent again

    def turn_to(self, *urls: str) -> None:
        """Ask these doors from now on, in turns."""
        self._urls = itertools.cycle(f"{one}/api/tasks" for one in urls)

    async def post(self, session: aiohttp.ClientSession, task_type: str = "work", **payload: Any) -> int:
        """One task; its number."""
        n = next(self._numbers)
        await self._send(session, n, self.body(n, task_type, **payload), {})
        return n

    async def insist(self, session: aiohttp.ClientSession, task_type: str = "work", *, patience: float, **payload: Any) -> int:
        """One task with an Idempotency-Key, sent again until it is acknowledged or ``patience`` (seconds) is over; its number."""
        n, ends = next(self._numbers), now() + patience
        body, headers = self.body(n, task_type, **payload), {"Idempotency-Key": f"{self._scenario}-{n}"}
        while n not in self.acknowledged and now() < ends:
            await self._send(session, n, body, headers)
            if n not in self.acknowledged:
                self.repeated += 1
                await asyncio.sleep(0.1)
        return n

    def body(self, n: int, task_type: str, **payload: Any) -> dict[str, Any]:
        """What is POSTed for the task of that number."""
        fields: dict[str, Any] = {name: payload.pop(name) for name in ("delay", "queue", "run_at") if name in payload}
        return {"task_type": task_type, "payload": {"n": n, "scenario": self._scenario, "seconds": 0.02, **payload}, **fields}

    async def _send(self, session: aiohttp.ClientSession, n: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        """POST once, and write the answer down. What was unknown once stays so, until it is acknowledged."""
        began = now()
        try:
            async with session.post(next(self._urls), json=body, headers=headers) as answer:
                said = await answer.json(content_type=None)
                if answer.status == 201:
                    self.acknowledged[n], self.sent_at[said["id"]] = said["id"], began
                    self.unknown.pop(n, None)
                    self.refused.pop(n, None)
                elif said.get("code") == "outcome_unknown":
                    self.unknown[n] = "outcome_unknown"
                elif n not in self.unknown:
                    self.refused[n] = answer.status
        except aiohttp.ClientConnectorError:
            if n not in self.unknown:
                self.refused[n] = 0
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.unknown[n] = f"{type(error).__name__}: {error}"
            self.refused.pop(n, None)
        self.slowest = max(self.slowest, now() - began)

    async def post_all(self, many: int, task_type: str = "work", **payload: Any) -> list[str]:
        """So many alike, all of which must be acknowledged, at the second try where a machine is busy; their ids."""
        async with connections() as session, asyncio.TaskGroup() as group:
            posts = [group.create_task(self.insist(session, task_type, patience=2 * PATIENCE, **payload)) for _ in range(many)]
        return [self.acknowledged[post.result()] for post in posts]

    async def run(self, *, rate: float, seconds: float, each: float = 0.02) -> None:
        """``rate`` tasks a second for so many seconds, however slow the answers are; ``each`` takes so many seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with connections() as session, asyncio.TaskGroup() as group:
            for at in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + at / rate - loop.time()))
                group.create_task(self.post(session, seconds=each))


def connections() -> aiohttp.ClientSession:
    """A client's side of HTTP."""
    # A connection for each request: one that is kept may be closed by a stopping server in the moment in which it is used again.
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0), timeout=aiohttp.ClientTimeout(total=PATIENCE))
