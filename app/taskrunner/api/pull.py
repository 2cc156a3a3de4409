"""Claims for workers that pull over HTTP: they wait here until something is due that they can run.

The lanes are the scheduler's (``domain/lanes``); marks and fairness are those of this process. A look at the database is shared by all who
wait, and hints of this process wake them at once.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from taskrunner.domain.errors import TaskrunnerError
from taskrunner.domain.lanes import BATCH_BYTES, Gates, Lanes, Serves
from taskrunner.domain.task import Back
from taskrunner.settings import Settings
from taskrunner.store.claims import Claimed
from taskrunner.store.notify import Hint, Hints
from taskrunner.store.pulling import Puller, Pulling

TICK = 0.2  # seconds between two looks while somebody waits


class Claim(NamedTuple):
    """What a claim got."""

    session: UUID
    claimed: list[Claimed]


class Pull:
    """Everything that pulling workers of this process share."""

    def __init__(self, pulling: Pulling, hints: Hints, settings: Settings) -> None:
        self._pulling = pulling
        self._hints = hints
        self._settings = settings
        self._lanes = Lanes()
        self._suspects: dict[str, float] = {}  # type: when the first is due, on our clock
        self._looked_at = float("-inf")
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._closed = self._listening = False

    async def claim(self, session: UUID | None, who: Puller, *, wait: float, gone: Callable[[], bool]) -> Claim | None:
        """Tasks for the worker, as soon as there are any, or none after ``wait`` seconds. Without a session one begins. None: it is dead.

        One that is to drain waits in vain. ``gone`` says whether the client has hung up: then what was claimed goes back.
        """
        self._listen()
        began = kept = monotonic()
        draining = False
        if session is None:
            session = await self._pulling.open(who)
        else:
            renewed = await self._pulling.renew(session, who)
            if renewed is None:
                return None
            draining = renewed
            self.came_back(await self._pulling.release_unheard(session))
        claimed: list[Claimed] = []
        while not (claimed or self._closed or gone()):
            news = self._news
            claimed = [] if draining else await self._take(session, who, fresh=began)
            left = began + wait - monotonic()
            if claimed or left <= 0:
                break
            await self._sleep(news, left, self._serves(who))
            if monotonic() - kept > self._settings.beat:
                kept = monotonic()
                await self._pulling.keep(session)
        if claimed and gone():
            for one in claimed:
                self.came_back(await self._pulling.release(one))
        return Claim(session, claimed)

    def came_back(self, backs: Iterable[Back]) -> None:
        """Tasks are in their lanes again: tell everybody."""
        for lane, run_at, due_in in backs:
            self._hints.lane(lane, run_at, due_in)

    def stop(self) -> None:
        """Whoever waits goes on with nothing."""
        self._closed = True
        self._news.set()

    async def close(self) -> None:
        """Give the connection back."""
        if self._listening:
            self._hints.unsubscribe(self._heard)
        await self._pulling.close()

    def _listen(self) -> None:
        """Hear hints, once somebody pulls: a process that nobody pulls from need not keep lanes."""
        if not self._listening:
            self._listening = True
            self._hints.subscribe(self._heard)

    def _heard(self, hint: Hint) -> None:
        now = monotonic()
        for lane, (run_at, due_in) in hint.lanes.items():
            self._lanes.found(lane, run_at=run_at, due_at=now + due_in, now=now)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _serves(self, who: Puller) -> Serves:
        defaults = tuple((name, self._settings.max_attempts, self._settings.timeout) for name in sorted(who.task_types))
        return Serves(defaults, None if "*" in who.queues else frozenset(who.queues))

    async def _sleep(self, news: asyncio.Event, seconds: float, serves: Serves) -> None:
        """Until there is news, something is due that was seen before, or it is time to look again."""
        due_at = self._lanes.next_due([serves])
        now = monotonic()
        until_due = TICK if due_at is None or due_at <= now else due_at - now
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, TICK, until_due)):
                await news.wait()

    async def _take(self, session: UUID, who: Puller, *, fresh: float) -> list[Claimed]:
        """What is due now, ``who.slots`` at most: nothing is missed that was committed before ``fresh``."""
        async with self._turn:
            serves = self._serves(who)
            if self._looked_at < monotonic() - TICK:
                await self._look()
            taken = await self._claim_all(session, serves, who.slots)
            if not taken and self._looked_at < fresh:
                await self._look()
                taken = await self._claim_all(session, serves, who.slots)
            return taken

    async def _look(self) -> None:
        self._looked_at = monotonic()
        found = await self._pulling.look()
        now = monotonic()
        queues, types = ({name: now + seconds for at, name, seconds in found.closed if at == scope} for scope in ("queue", "type"))
        self._lanes.gates = Gates(queues, types)
        for lane, run_at, due_in in found.lanes:
            self._lanes.found(lane, run_at=run_at, due_at=now + due_in, now=now)
        self._suspects = {name: now + due_in for name, due_in in found.suspects.items()}
        self._lanes.forget(now)

    async def _claim_all(self, session: UUID, serves: Serves, free: int) -> list[Claimed]:
        """Suspects first: a session takes few at a time, so the others never wait for long. What was taken before an error counts."""
        taken: list[Claimed] = []
        size = 0
        now, gates = monotonic(), self._lanes.gates
        due = [name for name, due_at in self._suspects.items() if due_at <= now and gates.types.get(name, 0.0) <= now]
        wanted = Serves(tuple(default for default in serves.defaults if default[0] in due), serves.queues)
        try:
            if wanted.defaults:
                closed = [queue for queue, until in gates.queues.items() if until > now]
                taken += await self._pulling.claim_suspects(wanted, session, free, closed=closed)
                free -= len(taken)
            while free > 0 and size < BATCH_BYTES and (picks := self._lanes.choose(serves, free, began := monotonic())):
                claimed, took = await self._pulling.claim(picks, session, free)
                n = sum(one.n for one in claimed)
                self._lanes.claimed(picks, took, full=n >= free, now=began)
                self._lanes.to_peek()  # nobody asks: the next look says when they are due
                taken += claimed
                free -= n
                size += sum(one.size for one in took.values())
        except TaskrunnerError:
            if not taken:
                raise
        return taken
