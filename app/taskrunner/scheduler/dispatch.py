"""The dispatcher: claims due tasks for free places, and sleeps until the next one is due."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from time import monotonic
from typing import TypeVar

import structlog

from taskrunner.domain.errors import OutcomeUnknown, TaskrunnerError, TooSlow
from taskrunner.domain.lanes import BATCH, Lanes, Pick, Serves, Took
from taskrunner.domain.task import Back, Lane
from taskrunner.scheduler.delivery import Delivery
from taskrunner.scheduler.roster import Roster, Session
from taskrunner.store.claims import Claimed, Claims, Seat
from taskrunner.store.notify import Hint

log = structlog.get_logger()
SHY, SHYEST = 0.005, 0.1  # seconds before suspects are asked for again, when nobody may have one: twice as long each time
ROUNDING = 0.0005  # seconds: uvloop rounds a timer to the nearest millisecond, and early is worse than late
AHEAD = 0.004  # seconds before tasks are due that they are claimed, when nothing else is: about what a claim takes
TOGETHER = 0.001  # seconds within which tasks that will be due are claimed, and sent, together
R = TypeVar("R")


class Dispatcher:
    """One loop, one claim at a time: whatever may have made something claimable, or a place free, wakes it. And a second one beside it, for
    what a single lane has in plenty: while the first claim is being committed the database works on the next.
    """

    def __init__(self, claims: Claims, second: Claims, roster: Roster, lanes: Lanes, delivery: Delivery) -> None:
        self._claims = claims
        self._second = second
        self._roster = roster
        self._lanes = lanes
        self._delivery = delivery
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.stopped = False
        self._begun = asyncio.Event()  # a claim is on its way
        self._ahead_until = 0.0  # what is due until then was claimed ahead
        self._suspects: dict[str, float] = {}
        self._shy, self._shy_until, self._deferred = 0.0, 0.0, False

    def wake(self) -> None:
        """A place became free."""
        self._wake.set()

    def hint(self, hint: Hint) -> None:
        """Somebody made tasks claimable."""
        for lane, (run_at, delay) in hint.lanes.items():
            self.found(Back(lane, run_at, delay))

    def found(self, *backs: Back) -> None:
        """There are tasks in these lanes."""
        now = monotonic()
        for lane, run_at, due_in in backs:
            self._lanes.found(lane, run_at=run_at, due_at=now + due_in, now=now)
        self._wake.set()

    def suspects(self, due_in: dict[str, float]) -> None:
        """Types with suspects, and the seconds until the first of each is due."""
        now = monotonic()
        self._suspects = {name: now + seconds for name, seconds in due_in.items()}
        if due_in:
            self._wake.set()

    def settled(self, backs: list[Back]) -> None:
        """Outcomes or starts are committed: tasks may have gone back, and a session that has suspects may be free for the next one."""
        if backs:
            self.found(*backs)
        elif self._suspects:
            self._wake.set()

    def stop(self) -> None:
        """Claim nothing more."""
        self.stopped = True

    async def run(self) -> None:
        """Dispatch, for ever."""
        timer: asyncio.TimerHandle | None = None
        while True:
            await self._wake.wait()
            self._wake.clear()
            if timer is not None:
                timer.cancel()
            try:
                await self._round()
            except TaskrunnerError as error:
                log.warning("claiming failed", error=str(error))
                timer = self._loop.call_later(0.2, self._wake.set)
                continue
            due_at = self._next_due()
            delay = None if due_at is None else max(0.0, self._wake_at(due_at) - monotonic())
            timer = None if delay is None else self._loop.call_later(delay + ROUNDING, self._wake.set)

    def _wake_at(self, due_at: float) -> float:
        """When to wake for what is due then: a little before, unless that was in vain."""
        early = due_at - AHEAD
        return early if due_at > self._ahead_until and early > monotonic() else due_at

    def _next_due(self) -> float | None:
        """When to look again by ourselves; None while there are no workers, or no places (a place that becomes free wakes us)."""
        classes = [serves for serves, sessions in self._roster.classes().items() if any(session.places for session in sessions)]
        types = {name for serves in classes for name, _, _ in serves.defaults}
        now = monotonic()
        times = [due_at for name, due_at in self._suspects.items() if name in types and due_at > now]
        times += [self._shy_until] if self._deferred and classes else []
        first = self._lanes.next_due(classes)
        return min([first, *times] if first is not None else times, default=None)

    async def _round(self) -> None:
        await self._claim_suspects()  # first: they would find no place behind a backlog
        last: tuple[list[Claimed], float] = [], 0.0  # what was claimed and is not delivered yet, and when that began
        progress = True
        while progress and not self.stopped:
            progress = False
            for serves, sessions in self._roster.classes().items():
                ahead = self._ahead(serves)
                if ahead is None:
                    continue  # before anything is done for each of its sessions
                seats, free = self._seats(sessions)
                picks = self._lanes.choose(serves, free, monotonic(), ahead=ahead) if free else []
                if not picks:
                    continue
                claimed_at = monotonic()
                self._loop.call_soon(self._delivery.send, *last)  # while the database looks for more
                self._begun.set()
                claimed, took = await self._claim(self._claims, picks, seats, free, ahead=ahead)
                last = claimed, claimed_at
                if ahead:
                    self._ahead_until = claimed_at + ahead
                    await self._keep(*last, took)
                    last = [], 0.0
                progress = True
            if not progress:
                await self._send_now(*last)
                last = [], 0.0
                progress = await self._peek()
        self._delivery.send(*last)

    async def run_second(self) -> None:
        """Claim beside the other loop's claims, for ever. What a claim holds is skipped by the other, and its places are taken."""
        while True:
            await self._begun.wait()
            self._begun.clear()
            try:
                while await self._round_beside():
                    pass
            except TaskrunnerError as error:
                log.warning("claiming failed", error=str(error))
            self._wake.set()  # places that were kept may be free again, and a lane may be at its end

    async def _round_beside(self) -> bool:
        """One claim for each class of sessions that has room for a whole batch of a single lane; whether there was any."""
        progress = False
        for serves, sessions in self._roster.classes().items():
            if self.stopped or not self._lanes.due(serves, monotonic()):
                continue
            seats, free = self._seats(sessions)
            picks = self._lanes.choose(serves, free, monotonic()) if free == BATCH else []
            if len(picks) == 1:  # several would share, and take turns
                claimed_at = monotonic()
                claimed, _ = await self._claim(self._second, picks, seats, free)
                self._delivery.send(claimed, claimed_at)
                progress = True
        return progress

    def _seats(self, sessions: Sequence[Session]) -> tuple[list[Seat], int]:
        """Free places there, and how many a claim may fill."""
        seats = self._roster.seats(sessions)
        return seats, min(sum(seat.free for seat in seats), BATCH)

    async def _claim(
        self, claims: Claims, picks: list[Pick], seats: list[Seat], free: int, *, ahead: float = 0.0
    ) -> tuple[list[Claimed], Mapping[Lane, Took]]:
        began = monotonic()
        try:
            claimed, took = await self._sure(seats, claims.claim(picks, seats, ahead=ahead))
        except TooSlow:
            self._lanes.too_slow(picks)
            raise
        self._lanes.claimed(picks, took, full=sum(one.n for one in claimed) >= free, now=began)
        return self._counted(claimed), took

    def _ahead(self, serves: Serves) -> float | None:
        """How many seconds ahead to claim: none when something is due, and None when nothing will be for a while."""
        now = monotonic()
        if self._lanes.due(serves, now):
            return 0.0
        first = self._lanes.next_due([serves])
        if first is None or first > now + AHEAD or first <= self._ahead_until:
            return None
        return first + TOGETHER - now

    async def _keep(self, claimed: list[Claimed], claimed_at: float, took: Mapping[Lane, Took]) -> None:
        """Send what was claimed ahead when all of it is due, by the database's clock; give it back where that has been put back."""
        if not claimed:
            return
        early = AHEAD + TOGETHER  # at most
        with suppress(TaskrunnerError):  # by now they are claimed: they must go out, rather late than never
            early = (max(one.mark.run_at for one in took.values()) - await self._claims.clock()).total_seconds()
        if early > 2 * (AHEAD + TOGETHER):  # they would hold their places for as long as the clock went back
            self._delivery.give_back(claimed)
        else:
            self._delivery.send_at(monotonic() + early, claimed, claimed_at)

    async def _peek(self) -> bool:
        """Ask when the lanes that were found empty are due next; whether one of them is due by now, or will be in a moment."""
        asked = self._lanes.to_peek()
        if not asked:
            return False
        due = False
        for lane, due_in in await self._claims.peek(asked):
            now = monotonic()
            due |= self._lanes.peeked(lane, now + due_in, now) or 0 < due_in <= AHEAD
        return due

    async def _claim_suspects(self) -> None:
        """Tasks that lost a worker: those that lost one, as many as each session may have, then those that come alone."""
        now, gates = monotonic(), self._lanes.gates
        due = {name for name, due_at in self._suspects.items() if due_at <= now and gates.types.get(name, 0.0) <= now}
        self._deferred = bool(due) and now < self._shy_until
        if not due or self._deferred or self.stopped:
            return
        closed = [queue for queue, until in gates.queues.items() if until > now]
        n = 0
        for (serves, sessions), alone in product(self._roster.classes().items(), (False, True)):
            wanted = Serves(tuple(default for default in serves.defaults if default[0] in due), serves.queues)
            seats = [Seat(s.id, s.stream, min(places, BATCH)) for s in sessions if (places := s.places)]
            if wanted.defaults and seats:
                claimed_at = monotonic()
                claimed = await self._sure(seats, self._claims.claim_suspects(wanted, seats, alone=alone, closed=closed))
                await self._send_now(self._counted(claimed), claimed_at)
                n += len(claimed)
        self._shy = 0.0 if n else min(SHYEST, 2 * self._shy + SHY)
        self._shy_until = now + self._shy

    async def _sure(self, seats: list[Seat], claim: Awaitable[R]) -> R:
        """The answer to a claim.

        When there is none, it may be committed all the same, for workers that will never hear of it: they say Hello again, and what they
        do not name is taken back.
        """
        self._reserve(seats, 1)
        try:
            return await claim
        except OutcomeUnknown:
            for seat in seats:
                session = self._roster.get(seat.session)
                if session is not None and session.stream == seat.stream:
                    session.dismiss("a claim for it may be lost")
            raise
        finally:
            self._reserve(seats, -1)

    def _reserve(self, seats: list[Seat], sign: int) -> None:
        """While a claim is on its way, nobody else gives away the places that it may fill."""
        for seat in seats:
            session = self._roster.get(seat.session)
            if session is not None and session.stream == seat.stream:
                session.outstanding += sign * seat.free

    def _counted(self, claimed: list[Claimed]) -> list[Claimed]:
        """The same; from now on they take up places."""
        for one in claimed:
            session = self._roster.get(one.session)
            if session is not None and session.stream == one.stream:
                session.outstanding += one.n
        return claimed

    async def _send_now(self, claimed: list[Claimed], claimed_at: float) -> None:
        self._delivery.send(claimed, claimed_at)
        if claimed:
            await asyncio.sleep(0)  # the writers first: it is on its way before the next question is asked
