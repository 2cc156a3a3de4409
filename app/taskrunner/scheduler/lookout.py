"""The lookout: makes sure of what hints make quick.

Each second it finds all lanes with a loose index scan, and suspects. Where an old snapshot keeps dead rows from vacuum that scan becomes
slow, so it is made less often (never more than a hundredth of the time). Between two of them it looks ahead of each watermark, where
next to nothing is dead, and sweeps the stretch before it in windows, the newest first.
"""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from time import monotonic

import structlog

from taskrunner.domain.errors import TooSlow
from taskrunner.domain.lanes import Lanes
from taskrunner.domain.task import Back
from taskrunner.scheduler.dispatch import Dispatcher
from taskrunner.scheduler.roster import Roster
from taskrunner.store.claims import Looks

log = structlog.get_logger()
PERIOD = 1.0
SHARE = 100  # a scan that takes t seconds is not made again before SHARE * t
BUDGET = 0.010  # seconds of sweeping in a pass
NEWEST = timedelta(seconds=2)
OLDEST = timedelta(days=1)


class Lookout:
    """``run_once`` is one pass; it does nothing while there are no workers."""

    def __init__(self, looks: Looks, roster: Roster, lanes: Lanes, dispatcher: Dispatcher) -> None:
        self._looks = looks
        self._roster = roster
        self._lanes = lanes
        self._dispatcher = dispatcher
        self._loop = asyncio.get_running_loop()
        self._find_at = self._peek_at = 0.0
        self._depth = NEWEST

    def look(self) -> None:
        """Make the next pass a full one."""
        self._find_at = 0.0

    async def run_once(self) -> None:
        """Find lanes, or look round the watermarks where finding is dear. Raises Unavailable while the database is away."""
        if not len(self._roster):
            return
        now = self._loop.time()
        if now >= self._find_at:
            self._find_at = await self._rarely(self._find())
        else:
            if now >= self._peek_at:
                self._peek_at = await self._rarely(self._peek())
            await self._sweep()
        self._dispatcher.suspects(dict(await self._looks.find_suspects()))
        self._lanes.forget(self._loop.time())

    async def _rarely(self, look: Awaitable[None]) -> float:
        """When to do that again: in the next pass, unless it took long. One that the database gave up took long, and is no reason to do
        nothing else.
        """
        began = self._loop.time()
        try:
            await look
        except TooSlow as error:
            log.warning("looking for tasks took too long, and will be rare", error=str(error))
        rest = SHARE * (self._loop.time() - began)
        return began + rest if rest > PERIOD else 0.0

    async def _find(self) -> None:
        for lane, run_at, due_in in await self._looks.find():
            self._dispatcher.found(Back(lane, run_at, due_in))

    async def _peek(self) -> None:
        """Ahead of the watermarks. Where another scheduler has claimed there, dead rows make this dear, too."""
        asked = self._lanes.quiet(monotonic())
        for lane, due_in in await self._looks.peek(asked) if asked else ():
            now = monotonic()
            self._lanes.peeked(lane, now + due_in, now)
            self._dispatcher.wake()

    async def _sweep(self) -> None:
        """The newest window always, and then as many older ones as the budget allows; the next pass goes on from there."""
        began = self._loop.time()
        await self._window(timedelta(0), NEWEST)
        while self._loop.time() - began < BUDGET:
            newer, older = self._depth, self._depth * 2
            if older > OLDEST:
                await self._window(newer, None)
                self._depth = NEWEST
                return
            await self._window(newer, older)
            self._depth = older

    async def _window(self, newer: timedelta, older: timedelta | None) -> None:
        stretches = self._lanes.windows(newer, older)
        if stretches:
            for lane, run_at in await self._looks.sweep(stretches):
                self._dispatcher.found(Back(lane, run_at, 0.0))
