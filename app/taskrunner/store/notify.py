"""Hints: "there is something in this lane". They make things quick; nothing depends on them.

A hint is sent after the commit, on a connection of its own: NOTIFY inside the inserting transaction would serialise all commits.
While one is on its way the next one fills, and after each there is a short pause, a longer one under load.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg

from taskrunner.domain.errors import TaskrunnerError, Unavailable
from taskrunner.domain.task import Lane
from taskrunner.store.pool import Connection, Line

CHANNEL = "taskrunner"
PAUSE, LONGEST_PAUSE = 0.002, 0.016
MANY = 3_000  # tasks a second, above which a pause costs nobody anything
SILENCE, PATIENCE = 10.0, 5.0  # seconds after which a connection is asked whether it still lives, and for which its answer is waited for
MOST_LANES = 30  # a payload has 8,000 bytes; beyond that many lanes the listeners look for themselves


@dataclass(slots=True)
class Hint:
    """What changed: the lanes with something to claim from a time on (and seconds until then), and sessions with a task to be cancelled.

    ``look`` means: more than could be said.
    """

    lanes: dict[Lane, tuple[datetime, float]] = field(default_factory=dict)
    cancels: set[UUID] = field(default_factory=set)
    look: bool = False

    def add(self, lane: Lane, run_at: datetime, delay: float) -> None:
        """Something is in ``lane``, due at ``run_at``, in ``delay`` seconds."""
        known = self.lanes.get(lane)
        if known is None or run_at < known[0]:
            self.lanes[lane] = (run_at, delay)

    def dump(self, by: str) -> str:
        """As the payload of NOTIFY. ``by`` names the process, which need not hear itself."""
        lanes = [
            {"queue": n.queue, "type": n.task_type, "priority": n.priority, "run_at": at, "in": delay}
            for n, (at, delay) in self.lanes.items()
        ]
        many = len(lanes) > MOST_LANES
        text = orjson.dumps(
            {"v": 1, "by": by, "lanes": [] if many else lanes, "cancels": list(self.cancels)[:100], "look": self.look or many}
        ).decode()
        return text if len(text.encode()) < 7_900 else '{"v":1,"look":true}'

    @classmethod
    def load(cls, text: str) -> "Hint":
        """From the payload of NOTIFY, whoever sent it: any role may. What is not well-formed is a reason to look."""
        try:
            raw: dict[str, Any] = orjson.loads(text)
            hint = cls(look=bool(raw.get("look")))
            for n in raw.get("lanes", ()):
                hint.add(*_read(n))
            hint.cancels.update(UUID(session) for session in raw.get("cancels", ()))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return cls(look=True)
        return hint


def _read(raw: dict[str, Any]) -> tuple[Lane, datetime, float]:
    """A lane of a payload. Raises an error of any kind where a claim could not go on with it."""
    lane = Lane(raw["queue"], raw["type"], raw["priority"])
    run_at, delay = datetime.fromisoformat(raw["run_at"]), raw["in"]
    names = all(isinstance(name, str) and 1 <= len(name) <= 200 and "\0" not in name for name in lane[:2])
    if not (names and type(lane.priority) is int and 1 <= lane.priority <= 4 and run_at.tzinfo and isfinite(delay)):
        raise ValueError
    return lane, run_at.astimezone(UTC), delay


Listen = Callable[[Hint], None]


class Hints:
    """Sends hints to the schedulers of other processes, and at once to those of this one."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._next = Hint()  # for other processes
        self._tasks = 0  # since the last pause began
        self._wake = asyncio.Event()
        self._near = Hint()  # for this one
        self._listeners: list[Listen] = []
        self.name = uuid4().hex

    def lane(self, lane: Lane, run_at: datetime, delay: float, n: int = 1) -> None:
        """``n`` tasks are in ``lane``, the first due at ``run_at``, in ``delay`` seconds."""
        self._next.add(lane, run_at, delay)
        self._tasks += n
        self._wake.set()
        if self._listeners:
            if not self._near.lanes:
                asyncio.get_running_loop().call_soon(self._tell)
            self._near.add(lane, run_at, delay)

    def cancel(self, session: UUID) -> None:
        """Somebody asked to cancel a task that ``session`` holds."""
        self._next.cancels.add(session)
        self._wake.set()

    def look(self) -> None:
        """More changed than can be said: every scheduler is to look for itself."""
        self._next.look = True
        self._wake.set()

    def subscribe(self, listen: Listen) -> None:
        """Call ``listen`` for each hint that begins in this process."""
        self._listeners.append(listen)

    def unsubscribe(self, listen: Listen) -> None:
        """Call it no more."""
        self._listeners.remove(listen)

    async def run(self) -> None:
        """Send what gathers, for ever."""
        pause = PAUSE
        while True:
            await self._wake.wait()
            self._wake.clear()
            hint, self._next = self._next, Hint()
            if hint.cancels or hint.look:
                for listen in self._listeners:
                    listen(Hint(cancels=hint.cancels, look=hint.look))
            payload = hint.dump(self.name)
            try:
                await self._line.run(lambda connection, payload=payload: _notify(connection, payload))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            except (TaskrunnerError, psycopg.Error):  # whatever forbids it: a hint that is lost costs a second at most
                await asyncio.sleep(0.1)
            self._tasks = 0
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE) if self._tasks > MANY * pause else PAUSE

    def _tell(self) -> None:
        hint, self._near = self._near, Hint()
        for listen in self._listeners:
            listen(hint)


async def _notify(connection: Connection, payload: str) -> None:
    await connection.execute("select pg_notify(%s, %s)", (CHANNEL, payload))


async def listen(connection: Connection, heard: Listen, *, but: str) -> None:
    """Hand each hint of processes other than ``but`` to ``heard``, for ever; raises when the connection is broken.

    A connection that has been silent for a while is asked again, which shows whether it still lives. Raises Unavailable when it does not
    answer.
    """
    await connection.execute(f"listen {CHANNEL}")
    heard(Hint(look=True))  # what was said before we listened
    while True:
        async for notification in connection.notifies(timeout=SILENCE):
            if but not in notification.payload:
                heard(Hint.load(notification.payload))
        try:
            async with asyncio.timeout(PATIENCE):
                await connection.execute(f"listen {CHANNEL}")
        except TimeoutError:
            raise Unavailable("the connection that listens for hints gives no answer") from None
