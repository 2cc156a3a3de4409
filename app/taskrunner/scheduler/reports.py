"""What workers report, and the batches that are made of it."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

from taskrunner.scheduler.roster import Session
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, GIVEN_BACK, Batch, Said
from taskrunner.wire import columns
from taskrunner.wire.pb.taskrunner.v1 import Outcome, Outcomes, Progress

T = TypeVar("T")
LONGEST_DELAY = 366 * 86_400.0
LONGEST_MESSAGE = 500  # characters of progress
LONGEST_ERROR = 10_000  # characters of an error or a traceback: more than our own workers send
MOST = 1_000  # tasks in one statement, unless a single message has more

KINDS = {
    Outcome.COMPLETED: COMPLETED,
    Outcome.RETRY: ERROR,
    Outcome.FAILED: ERROR,
    Outcome.SNOOZED: GIVEN_BACK,
    Outcome.RELEASED: GIVEN_BACK,
    Outcome.CANCELLED: CANCELLED,
}


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """A message of outcomes: ``n`` of them, and the bytes that it takes up until it is written."""

    session: Session
    outcomes: Outcomes
    n: int
    size: int


def next_reports(queue: deque[Report]) -> list[Report]:
    """The reports for one statement, which stay in the queue until it is committed."""
    reports: list[Report] = []
    n = 0
    for report in queue:
        if reports and n + report.n > MOST:
            break
        reports.append(report)
        n += report.n
    return reports


def names(ids: bytes, locked: frozenset[bytes]) -> bool:
    """Whether one of the ``locked`` is among ``ids``."""
    return bool(locked) and not locked.isdisjoint(columns.split(ids, columns.ID))


def check(outcomes: Outcomes) -> int:
    """How many outcomes these are. Raises ValueError for columns of different lengths."""
    n, rest = divmod(len(outcomes.ids), columns.ID)
    lengths: set[float] = {len(outcomes.epochs) / columns.EPOCH}
    lengths |= {len(column) for column in (outcomes.results, outcomes.errors, outcomes.tracebacks) if column}
    lengths |= {len(outcomes.delays) / 8} if outcomes.delays else set()
    lengths |= {len(outcomes.run_ms) / 4} if outcomes.run_ms else set()
    if rest or lengths != {n}:
        raise ValueError("the columns of Outcomes have different lengths")
    return n


def batch_of(reports: list[Report]) -> Batch:
    """All rows of these reports, which ended the same way."""
    n = sum(report.n for report in reports)
    completed = reports[0].outcomes.outcome == Outcome.COMPLETED
    return Batch(
        ids=b"".join(report.outcomes.ids for report in reports),
        epochs=b"".join(report.outcomes.epochs for report in reports),
        sessions=owners_of([(report.session, report.n) for report in reports]),
        results=_gather([(report.outcomes.results, report.n) for report in reports], lambda json: json.decode("utf-8", "replace")),
        errors=_gather([(report.outcomes.errors, report.n) for report in reports], _cut) or [None] * n,
        tracebacks=_gather([(report.outcomes.tracebacks, report.n) for report in reports], _cut) or [None] * n,
        delays=None if completed else [delay for report in reports for delay in _delays(report)],
        run_ms=b"".join(report.outcomes.run_ms or bytes(4 * report.n) for report in reports),
    )


def owners_of(reports: Sequence[tuple[Session, int]]) -> bytes:
    """Who says so: one session where only one does, else one for each row."""
    if len({session.id for session, _ in reports}) == 1:
        return reports[0][0].id.bytes
    return b"".join(session.id.bytes * n for session, n in reports)


def _cut(text: str) -> str:
    return text[:LONGEST_ERROR]


def size_of(progress: Progress) -> int:
    """The bytes that it takes up until it is written."""
    return len(progress.ids) + sum(map(len, progress.messages))


def said_of(said: Sequence[tuple[Session, Progress]]) -> Said:
    """All that these messages say, as one batch."""
    return Said(
        ids=b"".join(one.ids for _, one in said),
        epochs=b"".join(one.epochs for _, one in said),
        sessions=owners_of([(session, len(one.messages)) for session, one in said]),
        fractions=b"".join(one.fractions for _, one in said),
        messages=[message[:LONGEST_MESSAGE].replace("\0", "\N{REPLACEMENT CHARACTER}") for _, one in said for message in one.messages],
    )


def _gather(parts: Sequence[tuple[Sequence[T], int]], read: Callable[[T], str]) -> list[str | None] | None:
    """One column of several messages; what is empty is null. None where no message has it."""
    if not any(values for values, _ in parts):
        return None
    return [read(value) if value else None for values, n in parts for value in (values or repeat(None, n))]


def _delays(report: Report) -> list[float | None]:
    """Seconds until the next try: none for what is over, or was given back."""
    if report.outcomes.outcome in (Outcome.FAILED, Outcome.RELEASED, Outcome.CANCELLED):
        return [None] * report.n
    given = columns.doubles(report.outcomes.delays) or (0.0,) * report.n
    return [min(delay, LONGEST_DELAY) if delay > 0 else 0.0 for delay in given]
