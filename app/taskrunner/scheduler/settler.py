"""The settler: writes outcomes in batches, and tells each worker what is committed. While one batch is being written the next one fills."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from taskrunner.domain.errors import TaskrunnerError
from taskrunner.domain.task import Back
from taskrunner.scheduler.reports import KINDS, Report, batch_of, check, names, next_reports, owners_of, said_of, size_of
from taskrunner.scheduler.roster import Session
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, GIVEN_BACK, Batch, Kind, Settling
from taskrunner.wire import columns
from taskrunner.wire.pb.taskrunner.v1 import Outcomes, Progress, SchedulerMessage, Started
from taskrunner.wire.pb.taskrunner.v1 import Settled as SettledMessage

log = structlog.get_logger()
LOCKED = 0.5  # seconds until what a stranger has locked is tried again
MOST_HELD = 64 << 20  # bytes that wait to be written; beyond that no stream is read until half of them are


class Settler:
    """One loop, one statement at a time. What cannot be written now is written later: outcomes are fenced, so saying them again is safe.

    A message with a row that a stranger's transaction has locked is put aside, and nobody else waits for it.
    """

    def __init__(
        self, settling: Settling, *, committed: Callable[[list[Back]], None], told: Sequence[Callable[[bytes], None]] = ()
    ) -> None:
        self._settling = settling
        self._committed = committed
        self._told = told  # whoever in this process waits for tasks to end
        self._reports: dict[Kind, deque[Report]] = {kind: deque() for kind in (COMPLETED, ERROR, GIVEN_BACK, CANCELLED)}
        self._started: list[tuple[Session, Started]] = []
        self._progress: list[tuple[Session, Progress]] = []
        self._aside: list[tuple[int, Callable[[], None]]] = []  # how many outcomes, and what puts their message back into its queue
        self._strangers = False  # a lock was met, and what it holds up is not written yet
        self._held = 0
        self.room = asyncio.Event()  # for more
        self.room.set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def report(self, session: Session, outcomes: Outcomes) -> int:
        """Take a worker's outcomes; how many. Raises ValueError for columns of different lengths."""
        n = check(outcomes)
        size = len(outcomes.ids) + sum(sum(map(len, column)) for column in (outcomes.results, outcomes.errors, outcomes.tracebacks))
        self._reports[KINDS.get(outcomes.outcome, ERROR)].append(Report(session, outcomes, n, size))
        self._hold(size)
        self._idle.clear()
        self._wake.set()
        return n

    def started(self, session: Session, started: Started) -> None:
        """Handlers of these are running. Raises ValueError for columns of different lengths."""
        if len(started.ids) // columns.ID != len(started.epochs) / columns.EPOCH or len(started.ids) % columns.ID:
            raise ValueError("the columns of Started have different lengths")
        self._started.append((session, started))
        self._hold(len(started.ids))
        self._wake.set()

    def progress(self, session: Session, progress: Progress) -> None:
        """What handlers say of themselves. Raises ValueError for columns of different lengths."""
        n = len(progress.messages)
        if (len(progress.ids), len(progress.epochs), len(progress.fractions)) != (n * columns.ID, n * columns.EPOCH, n * 4):
            raise ValueError("the columns of Progress have different lengths")
        self._progress.append((session, progress))
        self._hold(size_of(progress))
        self._wake.set()

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > MOST_HELD:
            self.room.clear()
        elif self._held <= MOST_HELD // 2:
            self.room.set()

    @property
    def waiting(self) -> int:
        """Outcomes that are not written yet."""
        return sum(report.n for reports in self._reports.values() for report in reports) + sum(n for n, _ in self._aside)

    async def flushed(self) -> None:
        """Return when everything that was reported is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Settle, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while any(self._reports.values()) or self._started or self._progress:
                try:
                    await self._pass()
                except TaskrunnerError as error:
                    log.warning("settling failed, and is tried again", error=str(error))
                    await asyncio.sleep(random.uniform(0.1, 0.4))  # noqa: S311 — jitter
            if not self._aside:
                self._strangers = False
                self._idle.set()

    async def _pass(self) -> None:
        if self._started:
            started = self._started[:]
            owners = [(session, len(one.ids) // columns.ID) for session, one in started]
            locked = await self._settling.start(
                b"".join(s.ids for _, s in started), b"".join(s.epochs for _, s in started), owners_of(owners)
            )
            del self._started[: len(started)]
            for session, one in started:
                if names(one.ids, locked):
                    self._set_aside(0, partial(self._started.append, (session, one)))
                else:
                    self._hold(-len(one.ids))
            self._committed([])  # who ran one that lost a worker before may get more of them
        if self._progress:
            said, self._progress = self._progress, []  # what an error here loses was most likely not the last word
            self._hold(-sum(size_of(one) for _, one in said))
            await self._settling.progress(said_of(said))
        for kind, queue in self._reports.items():
            if queue:
                reports = next_reports(queue)
                locked = await self._settle(kind, reports)
                for report in reports:
                    queue.popleft()
                    if names(report.outcomes.ids, locked):
                        self._set_aside(report.n, partial(queue.append, report))
                    else:
                        self._hold(-report.size)

    def _set_aside(self, n: int, put_back: Callable[[], None]) -> None:
        if not self._strangers:
            self._strangers = True
            log.info("somebody's transaction has locked tasks that ended or began here: that is written later")
        if not self._aside:
            asyncio.get_running_loop().call_later(LOCKED, self._try_again)
        self._aside.append((n, put_back))

    def _try_again(self) -> None:
        aside, self._aside = self._aside, []
        for _, put_back in aside:
            put_back()
        self._wake.set()

    async def _settle(self, kind: Kind, reports: list[Report]) -> frozenset[bytes]:
        """Write these, and tell their workers; the ids that are locked, of which no message is told."""
        batch = batch_of(reports)
        settled = await self._settling.settle(kind, batch, wait=not self._strangers)
        locked = settled.locked
        if settled.refused:
            locked |= await self._refuse(reports, settled.refused)
        for tell in self._told:
            tell(batch.ids)
        stale = dict(zip(columns.split(settled.stale_ids, columns.ID), columns.split(settled.stale_epochs, columns.EPOCH), strict=True))
        batches: dict[Session, SettledMessage] = {}
        for report in reports:
            if names(report.outcomes.ids, locked):
                continue
            message = batches.setdefault(report.session, SettledMessage())
            message.batches.append(report.outcomes.batch)
            if stale:
                theirs = [id for id in columns.split(report.outcomes.ids, columns.ID) if id in stale]  # noqa: A001 — the column's name
                message.stale_ids += b"".join(theirs)
                message.stale_epochs += b"".join(stale[id] for id in theirs)  # noqa: A001
        for session, message in batches.items():
            session.send(SchedulerMessage(settled=message))
        self._committed(settled.back)
        return locked

    async def _refuse(self, reports: list[Report], refused: dict[int, str]) -> frozenset[bytes]:
        """The database does not take these outcomes: their tasks fail, and say why. The ids that are locked."""
        batch = batch_of(reports).part([*refused])
        reasons = [f"what the handler returned or raised cannot be stored: {reason}" for reason in refused.values()]
        none = [None] * len(refused)
        failed = Batch(ids=batch.ids, epochs=batch.epochs, sessions=batch.sessions, errors=reasons, tracebacks=none, delays=none)
        return (await self._settling.settle(ERROR, failed)).locked
