"""Leases: renews the sessions that beat, declares the silent ones dead, and takes back what nobody holds any more.

Renew before reap: a scheduler declares nobody dead until its own statements have succeeded for two beats without a gap, so that an outage
of the database (or of this process) is not taken for the death of every worker.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from taskrunner.domain.errors import TaskrunnerError
from taskrunner.domain.task import Back
from taskrunner.scheduler.roster import Roster
from taskrunner.settings import Settings
from taskrunner.store.claims import Claimed
from taskrunner.store.sessions import Sessions
from taskrunner.wire.pb.taskrunner.v1 import Cancel, SchedulerMessage

log = structlog.get_logger()
LONGEST = 700.0  # seconds: no lease is longer (settings.lease is at most 600)
SOON = 0.55  # seconds: when both connections of a session broke, it is dead after half a second


class Leases:
    """Two loops on the control connection: one renews, one looks after the lost."""

    def __init__(self, sessions: Sessions, roster: Roster, settings: Settings, *, back: Callable[[list[Back]], None]) -> None:
        self._sessions = sessions
        self._roster = roster
        self._settings = settings
        self._back = back
        self._loop = asyncio.get_running_loop()
        self._beats: dict[UUID, list[asyncio.Future[bool]]] = {}
        self._lags: dict[UUID, float] = {}  # of those that beat
        self._beaten = asyncio.Event()
        self._lost: list[tuple[UUID, int | None]] = []
        self._renewed: dict[UUID, datetime] = {}  # when we did so last
        self._closed: list[tuple[UUID, int]] = []
        self._undelivered: list[Claimed] = []
        self._writing = asyncio.Lock()
        self._tend = asyncio.Event()
        self._well_since: float | None = None
        self._well_at = 0.0
        self.cancels: dict[UUID, tuple[bytes, bytes]] = {}
        self.beating: Counter[UUID] = Counter()
        self.draining: set[UUID] = set()

    async def beat(self, session: UUID, lag: float) -> bool:
        """Renew the session's lease with the next batch, and write its ``lag`` down; whether it still lives. Waits for the commit."""
        answer: asyncio.Future[bool] = self._loop.create_future()
        self._beats.setdefault(session, []).append(answer)
        self._lags[session] = lag
        self._beaten.set()
        return await answer

    def lost_stream(self, session: UUID, stream: int) -> None:
        """The session's Work stream of that number ended."""
        self._note_lost(session, stream)

    def lost_beat(self, session: UUID) -> None:
        """A Beat stream of the session ended."""
        self.beating[session] -= 1
        if not self.beating[session]:
            del self.beating[session]
            self.draining.discard(session)
        self._note_lost(session, None)

    def _note_lost(self, session: UUID, stream: int | None) -> None:
        self._lost.append((session, stream))
        self._tend.set()

    def closed(self, session: UUID, stream: int) -> None:
        """The session ended with its stream, as its worker had said; unless it still holds something."""
        self._closed.append((session, stream))
        self._tend.set()

    def undelivered(self, claimed: Claimed) -> None:
        """No byte of this claim was sent."""
        self._undelivered.append(claimed)
        self._tend.set()

    def tend(self) -> None:
        """Look after the sessions now."""
        self._tend.set()

    async def renew(self) -> None:
        """Renew what beats, for ever."""
        while True:
            await self._beaten.wait()
            self._beaten.clear()
            beats, self._beats = self._beats, {}
            try:
                alive = await self._sessions.renew({session: self._lags[session] for session in beats}, lease=self._settings.lease)
            except TaskrunnerError as error:
                log.warning("leases could not be renewed", error=str(error))
                self._unwell()
                for session, answers in beats.items():
                    self._beats.setdefault(session, []).extend(answers)
                self._loop.call_later(self._settings.beat / 4, self._beaten.set)
                continue
            self._well()
            self._lags = {session: self._lags[session] for session in self._beats}
            self.draining = self.draining - beats.keys() | {
                session for session, renewed in alive.items() if renewed.drain and session in self.beating
            }
            self._renewed |= {session: renewed.at for session, renewed in alive.items()}
            for session in alive.keys() - self.beating.keys():
                self._note_lost(session, None)  # again: its Beat stream ended while this was on its way, and what it renewed was not known
            for session, answers in beats.items():
                for answer in answers:
                    if not answer.done():
                        answer.set_result(session in alive)

    async def watch(self) -> None:
        """Look after the lost, for ever: once a second, and when something happened."""
        period = min(1.0, self._settings.beat)
        while True:
            timer = self._loop.call_later(period, self._tend.set)
            await self._tend.wait()
            self._tend.clear()
            timer.cancel()
            try:
                await self.run_once()
            except TaskrunnerError as error:
                log.warning("sessions could not be looked after", error=str(error))
                self._unwell()
                await asyncio.sleep(min(0.2, period))

    async def run_once(self) -> None:
        """One pass. Raises Unavailable while the database is away."""
        await self.write_down()
        if self._may_reap():
            for session, name in await self._end_dead():
                log.warning("a worker's session is over", session=str(session), worker=name)
        n, back = await self._sessions.take_back()
        self._well()
        if n:
            log.info("tasks taken back from lost workers", n=n)
            self._back(back)
            self._tend.set()  # there may be more
        await self._tell_cancels()
        await self._hear_lags()

    async def _end_dead(self) -> list[tuple[UUID, str]]:
        """Declare the dead dead, at once or not at all: a statement that waits (for the connection, in the network) would come upon leases
        that nobody could renew meanwhile.
        """
        now = await self._sessions.clock()
        if not self._may_reap():
            return []
        return await self._sessions.end_dead(longest=LONGEST, until=now + timedelta(seconds=self._settings.beat))

    async def write_down(self) -> None:
        """What was noted since the last pass; it stays noted until it is written. Raises Unavailable while the database is away."""
        async with self._writing:
            for one in [*self._undelivered]:
                back, locked = await self._sessions.release(one.session, one.stream, one.ids, one.epochs)
                self._back(back)
                if not locked:  # else again in the next pass: nobody else must wait for a stranger
                    self._undelivered.remove(one)
            while self._closed:
                await self._sessions.close_session(*self._closed[0])
                del self._closed[0]
            while self._lost:
                session, stream = self._lost[0]
                if stream is not None:
                    await self._sessions.lose_stream(session, stream)
                elif session not in self.beating and (at := self._renewed.pop(session, None)):
                    await self._sessions.lose_beat(session, at)
                del self._lost[0]
                self._loop.call_later(SOON, self._tend.set)

    async def _tell_cancels(self) -> None:
        here = {session.id for session in self._roster} | self.beating.keys()
        asked = await self._sessions.cancel_requests(here) if here else []
        self.cancels = {session: (ids, epochs) for session, ids, epochs in asked}
        for id, (ids, epochs) in self.cancels.items():  # noqa: A001 — the column's name
            session = self._roster.get(id)
            if session is not None:
                session.send(SchedulerMessage(cancel=Cancel(ids=ids, epochs=epochs)))

    async def _hear_lags(self) -> None:
        """Of the sessions here whose beats another scheduler hears: it writes them down."""
        elsewhere = {session.id for session in self._roster} - self.beating.keys()
        for id_, lag in (await self._sessions.lags(elsewhere)).items() if elsewhere else ():
            session = self._roster.get(id_)
            if session is not None and id_ not in self.beating and session.hear(lag):
                self._back([])  # none came back, but places may have

    def _well(self) -> None:
        now = self._loop.time()
        if self._well_since is None or now - self._well_at > 2 * max(self._settings.beat, 1.0):
            self._well_since = now
        self._well_at = now

    def _unwell(self) -> None:
        self._well_since = None

    def _may_reap(self) -> bool:
        now = self._loop.time()
        if self._well_since is None or now - self._well_at > 2 * max(self._settings.beat, 1.0):
            return False
        return now - self._well_since >= 2 * self._settings.beat
