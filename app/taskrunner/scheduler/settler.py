"""The settler: writes outcomes in batches, and tells each worker what is committed. While one batch is being written the next one fills."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

import structlog

from taskrunner.domain.errors import TaskrunnerError
from taskrunner.domain.task import Back
from taskrunner.scheduler.roster import Session
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, GIVEN_BACK, Batch, Kind, Said, Settling
from taskrunner.wire import columns
from taskrunner.wire.pb.taskrunner.v1 import Outcome, Outcomes, Progress, SchedulerMessage, Started
from taskrunner.wire.pb.taskrunner.v1 import Settled as SettledMessage

log = structlog.get_logger()
T = TypeVar("T")
LONGEST_DELAY = 366 * 86_400.0
LONGEST_MESSAGE = 500  # characters of progress
LONGEST_ERROR = 10_000  # characters of an error or a traceback: more than our own workers send
MOST = 1_000  # tasks in one statement, unless a single message has more
MOST_HELD = 64 << 20  # bytes that wait to be written; beyond that no stream is read until half of them are

KINDS = {
    Outcome.COMPLETED: COMPLETED,
    Outcome.RETRY: ERROR,
    Outcome.FAILED: ERROR,
    Outcome.SNOOZED: GIVEN_BACK,
    Outcome.RELEASED: GIVEN_BACK,
    Outcome.CANCELLED: CANCELLED,
}


@dataclass(frozen=True, slots=True)
class _Report:
    session: Session
    outcomes: Outcomes
    n: int
    size: int


class Settler:
    """One loop, one statement at a time. What cannot be written now is written later: outcomes are fenced, so saying them again is safe."""

    def __init__(
        self, settling: Settling, *, committed: Callable[[list[Back]], None], told: Sequence[Callable[[bytes], None]] = ()
    ) -> None:
        self._settling = settling
        self._committed = committed
        self._told = told  # whoever in this process waits for tasks to end
        self._reports: dict[Kind, deque[_Report]] = {kind: deque() for kind in (COMPLETED, ERROR, GIVEN_BACK, CANCELLED)}
        self._started: list[tuple[Session, Started]] = []
        self._progress: list[tuple[Session, Progress]] = []
        self._held = 0
        self.room = asyncio.Event()  # for more
        self.room.set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def report(self, session: Session, outcomes: Outcomes) -> int:
        """Take a worker's outcomes; how many. Raises ValueError for columns of different lengths."""
        n = _check(outcomes)
        size = len(outcomes.ids) + sum(sum(map(len, column)) for column in (outcomes.results, outcomes.errors, outcomes.tracebacks))
        self._reports[KINDS.get(outcomes.outcome, ERROR)].append(_Report(session, outcomes, n, size))
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
        self._hold(_size(progress))
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
        return sum(report.n for reports in self._reports.values() for report in reports)

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
            self._idle.set()

    async def _pass(self) -> None:
        if self._started:
            started = self._started[:]
            owners = [(session, len(one.ids) // columns.ID) for session, one in started]
            await self._settling.start(b"".join(s.ids for _, s in started), b"".join(s.epochs for _, s in started), _owners(owners))
            del self._started[: len(started)]
            self._hold(-sum(len(one.ids) for _, one in started))
            self._committed([])  # who ran one that lost a worker before may get more of them
        if self._progress:
            said, self._progress = self._progress, []  # what an error here loses was most likely not the last word
            self._hold(-sum(_size(one) for _, one in said))
            await self._settling.progress(_said(said))
        for kind, queue in self._reports.items():
            if queue:
                reports = _next(queue)
                await self._settle(kind, reports)
                for _ in reports:
                    self._hold(-queue.popleft().size)

    async def _settle(self, kind: Kind, reports: list[_Report]) -> None:
        batch = _batch(reports)
        settled = await self._settling.settle(kind, batch)
        if settled.refused:
            await self._refuse(reports, settled.refused)
        for tell in self._told:
            tell(batch.ids)
        stale = dict(zip(columns.split(settled.stale_ids, columns.ID), columns.split(settled.stale_epochs, columns.EPOCH), strict=True))
        batches: dict[Session, SettledMessage] = {}
        for report in reports:
            message = batches.setdefault(report.session, SettledMessage())
            message.batches.append(report.outcomes.batch)
            if stale:
                theirs = [id for id in columns.split(report.outcomes.ids, columns.ID) if id in stale]  # noqa: A001 — the column's name
                message.stale_ids += b"".join(theirs)
                message.stale_epochs += b"".join(stale[id] for id in theirs)  # noqa: A001
        for session, message in batches.items():
            session.send(SchedulerMessage(settled=message))
        self._committed(settled.back)

    async def _refuse(self, reports: list[_Report], refused: dict[int, str]) -> None:
        """The database does not take these outcomes: their tasks fail, and say why."""
        batch = _batch(reports).part([*refused])
        reasons = [f"what the handler returned or raised cannot be stored: {reason}" for reason in refused.values()]
        none = [None] * len(refused)
        failed = Batch(ids=batch.ids, epochs=batch.epochs, sessions=batch.sessions, errors=reasons, tracebacks=none, delays=none)
        await self._settling.settle(ERROR, failed)


def _next(queue: deque[_Report]) -> list[_Report]:
    """The reports for one statement, which stay in the queue until it is committed."""
    reports: list[_Report] = []
    n = 0
    for report in queue:
        if reports and n + report.n > MOST:
            break
        reports.append(report)
        n += report.n
    return reports


def _check(outcomes: Outcomes) -> int:
    n, rest = divmod(len(outcomes.ids), columns.ID)
    lengths: set[float] = {len(outcomes.epochs) / columns.EPOCH}
    lengths |= {len(column) for column in (outcomes.results, outcomes.errors, outcomes.tracebacks) if column}
    lengths |= {len(outcomes.delays) / 8} if outcomes.delays else set()
    lengths |= {len(outcomes.run_ms) / 4} if outcomes.run_ms else set()
    if rest or lengths != {n}:
        raise ValueError("the columns of Outcomes have different lengths")
    return n


def _batch(reports: list[_Report]) -> Batch:
    n = sum(report.n for report in reports)
    completed = reports[0].outcomes.outcome == Outcome.COMPLETED
    return Batch(
        ids=b"".join(report.outcomes.ids for report in reports),
        epochs=b"".join(report.outcomes.epochs for report in reports),
        sessions=_owners([(report.session, report.n) for report in reports]),
        results=_gather([(report.outcomes.results, report.n) for report in reports], lambda json: json.decode("utf-8", "replace")),
        errors=_gather([(report.outcomes.errors, report.n) for report in reports], _cut) or [None] * n,
        tracebacks=_gather([(report.outcomes.tracebacks, report.n) for report in reports], _cut) or [None] * n,
        delays=None if completed else [delay for report in reports for delay in _delays(report)],
        run_ms=b"".join(report.outcomes.run_ms or bytes(4 * report.n) for report in reports),
    )


def _owners(reports: Sequence[tuple[Session, int]]) -> bytes:
    """Who says so: one session where only one does, else one for each row."""
    if len({session.id for session, _ in reports}) == 1:
        return reports[0][0].id.bytes
    return b"".join(session.id.bytes * n for session, n in reports)


def _cut(text: str) -> str:
    return text[:LONGEST_ERROR]


def _size(progress: Progress) -> int:
    return len(progress.ids) + sum(map(len, progress.messages))


def _said(said: Sequence[tuple[Session, Progress]]) -> Said:
    return Said(
        ids=b"".join(one.ids for _, one in said),
        epochs=b"".join(one.epochs for _, one in said),
        sessions=_owners([(session, len(one.messages)) for session, one in said]),
        fractions=b"".join(one.fractions for _, one in said),
        messages=[message[:LONGEST_MESSAGE].replace("\0", "\N{REPLACEMENT CHARACTER}") for _, one in said for message in one.messages],
    )


def _gather(parts: Sequence[tuple[Sequence[T], int]], read: Callable[[T], str]) -> list[str | None] | None:
    """One column of several messages; what is empty is null. None where no message has it."""
    if not any(values for values, _ in parts):
        return None
    return [read(value) if value else None for values, n in parts for value in (values or repeat(None, n))]


def _delays(report: _Report) -> list[float | None]:
    """Seconds until the next try: none for what is over, or was given back."""
    if report.outcomes.outcome in (Outcome.FAILED, Outcome.RELEASED, Outcome.CANCELLED):
        return [None] * report.n
    given = columns.doubles(report.outcomes.delays) or (0.0,) * report.n
    return [min(delay, LONGEST_DELAY) if delay > 0 else 0.0 for delay in given]
