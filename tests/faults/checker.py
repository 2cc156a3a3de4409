"""What must hold whatever happened: joins what clients were told, what the database wrote and what handlers did.

I1 every acknowledged task ends. I2 the database holds what was acknowledged, and beyond that only what was left unknown. I3 an attempt that
was claimed once starts once at most. I4 what is finished stays as it is, and starts no more. I5 one result is accepted: that of the
claim that held the task last. I6 two executions overlap only when the first one's worker was cut off. I7 nothing is held for ever.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

HELD = ("QUEUED", "RUNNING")
FINISHED = ("COMPLETED", "FAILED", "CANCELLED")
FOREVER = float("inf")
CLOCKS = 0.1  # seconds by which two clocks of one machine may differ
WAKING = 0.05  # seconds: a process that is stopped between its look at the clock and a start makes that start when it goes on
EARLY = 0.5  # seconds after which a worker whose connections are gone is dead


@dataclass(slots=True, kw_only=True)
class Run:
    """One execution, as its handler saw it. ``end`` is None for one that never came to its end; ``how`` is done, failed or stopped."""

    task: str
    attempt: int
    holder: int
    start: float
    end: float | None = None
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a row, as the trigger saw it. ``holder`` is the process of the session."""

    at: float
    leaf: str
    op: str
    task: str
    epoch: int
    attempt: int
    status: str
    holder: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A task as it stands at the end. ``n`` is the number that its client gave it."""

    task: str
    n: int
    status: str
    epoch: int
    attempt: int
    max_attempts: int | None
    error: str | None = None
    task_type: str = ""


@dataclass(frozen=True, slots=True)
class Absence:
    """From when to when a worker's process was cut off: paused, without a network, or dead (to FOREVER)."""

    holder: int
    since: float
    to: float


@dataclass(slots=True, kw_only=True)
class Evidence:
    """Of one scenario. ``acknowledged`` are the ids by number, ``unknown`` the numbers whose POST broke or was answered outcome_unknown."""

    acknowledged: dict[int, str]
    unknown: set[int]
    rows: list[Row]
    changes: list[Change]
    runs: list[Run]
    absences: list[Absence] = field(default_factory=list)
    asked: dict[int, float] = field(default_factory=dict)  # when a process was asked to stop
    longest_hold: float = FOREVER

    @property
    def runs_by_task(self) -> dict[str, list[Run]]:
        """Executions of each task, by their start."""
        found: dict[str, list[Run]] = defaultdict(list)
        for run in sorted(self.runs, key=lambda run: run.start):
            found[run.task].append(run)
        return found

    @property
    def rerun(self) -> set[str]:
        """Tasks that were started more than once."""
        return {task for task, runs in self.runs_by_task.items() if len(runs) > 1}

    def second_runs(self) -> dict[str, list[Run]]:
        """Runs after the first of a task, by what the run before them met: died, cut off, asked to stop, failed, or unexplained."""
        found: dict[str, list[Run]] = defaultdict(list)
        absences = _by_holder(self.absences)
        for runs in self.runs_by_task.values():
            for first, second in pairwise(runs):
                found[self._why(first, second, absences[first.holder])].append(second)
        return found

    def _why(self, first: Run, second: Run, absences: list[Absence]) -> str:
        mine = [absence for absence in absences if absence.to + WAKING >= first.start and absence.since <= second.start]
        if any(absence.to == FOREVER for absence in mine):
            return "died"
        if any(absence.to - absence.since >= EARLY for absence in mine):
            return "cut off"
        if first.how == "failed":
            return "failed"
        return "asked to stop" if self.asked.get(first.holder, FOREVER) <= second.start else "unexplained"

    def violations(self) -> list[str]:
        """One sentence for each thing that must not be."""
        checks = (_ended, _accounted_for, _started_once, _final, _one_result, _overlaps, _holds)
        return [f"{check.__doc__}: {sentence}" for check in checks for sentence in check(self)]


def _ended(seen: Evidence) -> Iterator[str]:
    """I1"""
    status = {row.task: row.status for row in seen.rows}
    for n, task in seen.acknowledged.items():
        if status.get(task) not in FINISHED:
            yield f"acknowledged task {task} (number {n}) is {status.get(task, 'not there')}"


def _accounted_for(seen: Evidence) -> Iterator[str]:
    """I2"""
    for n, times in Counter(row.n for row in seen.rows).items():
        if times > 1:
            yield f"number {n} is there {times} times"
        if n not in seen.acknowledged and n not in seen.unknown:
            yield f"number {n} is there and was refused"
    for row in seen.rows:
        if seen.acknowledged.get(row.n, row.task) != row.task:
            yield f"number {row.n} has another id than its client was told"


def _started_once(seen: Evidence) -> Iterator[str]:
    """I3"""
    claims = {(c.task, c.epoch): c for c in seen.changes if _claims(c)}
    allowed = Counter((claim.task, claim.attempt, claim.holder) for claim in claims.values())
    for key, n in Counter((run.task, run.attempt, run.holder) for run in seen.runs).items():
        if n > allowed[key]:
            yield f"task {key[0]} attempt {key[1]} started {n} times in process {key[2]}, which claimed it {allowed[key]} times"
    for row in seen.rows:
        if row.max_attempts is not None and row.attempt > row.max_attempts:
            yield f"task {row.task} had {row.attempt} attempts of {row.max_attempts}"


def _final(seen: Evidence) -> Iterator[str]:
    """I4"""
    finished: dict[str, float] = {}
    for change in seen.changes:
        if change.leaf == "finished":
            if change.op != "INSERT" or change.task in finished:
                yield f"task {change.task} was finished and then changed ({change.op} {change.status})"
            finished.setdefault(change.task, change.at)
    for run in seen.runs:
        if run.start > finished.get(run.task, FOREVER):
            yield f"task {run.task} attempt {run.attempt} started in process {run.holder} after it was finished"


def _one_result(seen: Evidence) -> Iterator[str]:
    """I5"""
    claims = {(c.task, c.epoch): c.holder for c in seen.changes if _claims(c)}
    latest = dict(sorted(claims))  # of one task, the last epoch comes last
    done = {(run.task, run.attempt, run.holder): run.end or FOREVER for run in seen.runs if run.how == "done"}
    finished = {change.task: change.at for change in seen.changes if change.leaf == "finished"}
    for task, changes in _by_task(seen.changes).items():
        if any(later.epoch < earlier.epoch for earlier, later in pairwise(changes)):
            yield f"the epoch of task {task} went back"
    for row in seen.rows:
        if row.status == "COMPLETED":
            if row.epoch != latest.get(row.task):
                yield f"task {row.task} was completed by epoch {row.epoch}, but {latest.get(row.task)} held it"
            elif (came := (row.task, row.attempt, claims[row.task, row.epoch])) not in done:
                yield f"task {row.task} is completed, but nobody who held it came to its end"
            elif done[came] > finished.get(row.task, FOREVER) + CLOCKS:
                yield f"task {row.task} was completed before its holder came to its end: by somebody else"


def _overlaps(seen: Evidence) -> Iterator[str]:
    """I6"""
    absences = _by_holder(seen.absences)
    timed_out = {row.task for row in seen.rows if (row.error or "").startswith("timed out")}
    for task, runs in seen.runs_by_task.items():
        for at, first in enumerate(runs):
            gone = min((a.since for a in absences[first.holder] if a.to + WAKING >= first.start), default=FOREVER)
            killed = task in timed_out
            if first.end is None and gone == FOREVER and not killed:
                yield f"task {task} attempt {first.attempt} never came to its end in process {first.holder}, which lives"
            for second in runs[at + 1 :]:
                if second.start < (first.end or FOREVER) and not gone <= second.start and not killed:
                    yield f"task {task} ran in {first.holder} and in {second.holder} at the same time"


def _holds(seen: Evidence) -> Iterator[str]:
    """I7"""
    for task, seconds in longest_holds(seen.changes).items():
        if seconds > seen.longest_hold:
            yield f"task {task} was held for {seconds:.1f} s by one claim"


def longest_holds(changes: Sequence[Change]) -> dict[str, float]:
    """Seconds for which the longest claim of each task held it; infinite where it holds it still."""
    longest: dict[str, float] = {}
    for task, history in _by_task(changes).items():
        since: float | None = None
        for change in history:
            held = change.leaf == "live" and change.op != "DELETE" and change.status in HELD
            if held and since is None:
                since = change.at
            elif not held and since is not None:
                longest[task] = max(longest.get(task, 0.0), change.at - since)
                since = None
        if since is not None:
            longest[task] = FOREVER
    return longest


def born_claimed(change: Change) -> bool:
    """Whether the task was created for a worker that had a place."""
    return change.leaf == "live" and change.op == "INSERT" and change.status == "QUEUED"


def _claims(change: Change) -> bool:
    return born_claimed(change) or (change.leaf == "live" and change.op == "UPDATE" and change.status == "QUEUED")


def _by_task(changes: Sequence[Change]) -> dict[str, list[Change]]:
    found: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        found[change.task].append(change)
    return found


def _by_holder(absences: Sequence[Absence]) -> dict[int, list[Absence]]:
    found: dict[int, list[Absence]] = defaultdict(list)
    for absence in absences:
        found[absence.holder].append(absence)
    return found
