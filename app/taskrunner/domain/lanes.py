"""Which lanes to claim from, and from where: the scheduler's memory of the queue, fed with what the database answers.

A lane's *mark* is a watermark: everything up to it has been claimed, as far as we know. A claim begins behind it, so it never walks over
rows that it has been through. The mark moves back when something turns up before it: a hint, a retry, a late commit found by a sweep.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import inf
from typing import NamedTuple
from uuid import UUID

from taskrunner.domain.task import Lane

NIL = UUID(int=0)
BATCH = 500  # tasks in one claim: beyond that a bigger one is no faster
BATCH_BYTES = 4 * 1024 * 1024  # payloads in one claim, as far as the lane's recent ones foretell
SHARES = 4  # of a claim: no lane gets more than one while others of its rank wait
NARROW, WIDE = 8, 512  # lanes of one rank in a claim, twice as many as the last one needed: those behind the one that fills it cost nothing
LOCKED = 0.02  # seconds until a task that somebody has locked is tried again
MOST_CLASSES = 100  # of sessions, whose lanes are remembered
FORGET = 600.0  # seconds after which an empty lane is forgotten


class Mark(NamedTuple):
    """A place in a lane."""

    run_at: datetime
    id: UUID


BEGINNING = Mark(datetime.min.replace(tzinfo=UTC), NIL)


class Serves(NamedTuple):
    """What a class of sessions can run: ``defaults`` are (max_attempts, timeout) of each type; ``queues`` is None for all of them."""

    defaults: tuple[tuple[str, int, float], ...]
    queues: frozenset[str] | None

    def takes(self, lane: Lane) -> bool:
        """Whether tasks of ``lane`` can run there."""
        return any(name == lane.task_type for name, _, _ in self.defaults) and (self.queues is None or lane.queue in self.queues)

    def default(self, task_type: str) -> tuple[int, float]:
        """max_attempts and timeout of a type that is served."""
        return next((attempts, timeout) for name, attempts, timeout in self.defaults if name == task_type)


@dataclass(frozen=True, slots=True)
class Gates:
    """Queues and types that are closed, and until when on our clock; infinity is a pause."""

    queues: Mapping[str, float] = field(default_factory=dict)
    types: Mapping[str, float] = field(default_factory=dict)

    def opens_at(self, lane: Lane) -> float:
        """When both gates of a lane are open: before now when they are."""
        return max(self.queues.get(lane.queue, 0.0), self.types.get(lane.task_type, 0.0))

    def closed(self, lane: Lane, now: float) -> bool:
        """Whether nothing may be claimed from ``lane``."""
        return self.opens_at(lane) > now


class Pick(NamedTuple):
    """A lane to claim from: at most ``limit`` tasks behind ``mark``, with these values where the task has none of its own."""

    lane: Lane
    mark: Mark
    limit: int
    max_attempts: int
    timeout: float


class Took(NamedTuple):
    """What a claim took from a lane: how many, how many bytes of payload, and the last of them."""

    n: int
    size: int
    mark: Mark


@dataclass(slots=True)
class _State:
    mark: Mark = BEGINNING
    due_at: float | None = None  # on our clock; None: nothing is known to be there
    empty: bool = False  # the last claim got nothing from it
    tried_at: float = 0.0  # when that claim began
    seen_at: float = 0.0
    size: float = 256.0  # bytes of a payload, smoothed


class Lanes:
    """All lanes that have been seen. Times are those of the caller's monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, _State] = {}
        self._served: dict[Serves, list[list[tuple[Lane, _State]]]] = {}  # remembered until there is a lane more or less
        self._peeks: dict[Lane, _State] = {}  # to be asked when their next task is due
        self._turn = 0
        self._at: dict[Lane, int] = {}  # where the lanes that were chosen last have their turn
        self._width = NARROW
        self.gates = Gates()

    def found(self, lane: Lane, *, run_at: datetime, due_at: float, now: float) -> None:
        """There is a task in ``lane`` for ``run_at``, which is ``due_at`` on our clock."""
        state = self._state(lane)
        state.seen_at = now
        if run_at <= state.mark.run_at:
            state.mark = Mark(run_at, NIL)
        if state.due_at is None or due_at < state.due_at:
            state.due_at = due_at

    def due(self, serves: Serves, now: float) -> bool:
        """Whether these sessions can run anything that is due."""
        gates = self.gates if self.gates.queues or self.gates.types else None
        return any(
            state.due_at is not None and state.due_at <= now and not (gates and gates.closed(lane, now))
            for rank in self._of(serves)
            for lane, state in rank
        )

    def choose(self, serves: Serves, free: int, now: float, *, ahead: float = 0.0) -> list[Pick]:
        """The lanes to claim ``free`` tasks from that are due, or will be within ``ahead`` seconds. Best first: lower priority number
        first, in turn within one priority.

        Lanes of a lower rank come along only where the rank before has a single lane, whose leftover is theirs; otherwise the leftover of
        a lane belongs to its neighbours: there are more of them than shares, and the claim ends with the one that fills it.
        """
        defaults = {task_type: (attempts, timeout) for task_type, attempts, timeout in serves.defaults}
        gates = self.gates if self.gates.queues or self.gates.types else None
        picks: list[Pick] = []
        for rank in self._of(serves):
            chosen: dict[int, tuple[Lane, _State]] = {}
            for at in range(self._turn, self._turn + len(rank)):
                lane, state = rank[at % len(rank)]
                if (due_at := state.due_at) is not None and due_at <= now + ahead and not (gates and gates.closed(lane, now)):
                    chosen[at] = lane, state
                    if len(chosen) == self._width:
                        break
            if not chosen:
                continue
            quantum = min(-(-free // min(len(chosen), SHARES)), BATCH)
            for lane, state in chosen.values():
                limit = max(1, min(quantum, int(BATCH_BYTES / state.size)))
                picks.append(Pick(lane, state.mark, limit, *defaults[lane.task_type]))
            self._at = {lane: at for at, (lane, _) in chosen.items()}
            if len(chosen) > 1:
                break
        return picks

    def claimed(self, picks: Sequence[Pick], took: Mapping[Lane, Took], *, full: bool, now: float) -> None:
        """What the claim of ``picks`` took that began ``now``. ``full``: as many as there were places, so lanes may have more."""
        self._pass_turn(picks, took, full=full)
        for pick in picks:
            state = self._lanes[pick.lane]
            got = took.get(pick.lane)
            if got is not None:
                state.seen_at = now
                state.size += (got.size / got.n - state.size) / 4
                if state.mark == pick.mark:  # else something turned up before it meanwhile
                    state.mark = got.mark
            if not full and (got.n if got else 0) < pick.limit:
                state.due_at, state.empty, state.tried_at = None, got is None, now
                self._peeks[pick.lane] = state

    def too_slow(self, picks: Sequence[Pick]) -> None:
        """A claim of these was given up, perhaps since their payloads are large: take a quarter next time. What comes says how large they
        are.
        """
        for pick in picks:
            self._lanes[pick.lane].size = 4 * BATCH_BYTES / pick.limit

    def _pass_turn(self, picks: Sequence[Pick], took: Mapping[Lane, Took], *, full: bool) -> None:
        """To the lane behind the last one that was reached; to that one itself when it was cut short, or small claims would starve it."""
        reached = max(n for n, pick in enumerate(picks, 1) if pick.lane in took or not full)
        self._width = min(WIDE, max(NARROW, 2 * reached))
        last = picks[reached - 1]
        if last.lane in self._at:
            cut_short = full and took[last.lane].n < last.limit  # of a full claim the last one that was reached has something
            self._turn = self._at[last.lane] + (0 if cut_short else 1)

    def to_peek(self) -> list[tuple[Lane, Mark]]:
        """Lanes that were taken from to the end: ask when their next task is due, then say ``peeked``."""
        asked = [(lane, state.mark) for lane, state in self._peeks.items()]
        self._peeks.clear()
        return asked

    def quiet(self, now: float) -> list[tuple[Lane, Mark]]:
        """Lanes in which nothing is due, as far as is known, to be asked about likewise."""
        return [(lane, state.mark) for lane, state in self._lanes.items() if state.due_at is None or state.due_at > now]

    def peeked(self, lane: Lane, due_at: float, now: float) -> bool:
        """The next task behind the lane's mark is due then; whether to claim at once.

        One that was due before a claim that did not get it is locked by somebody: by another scheduler that takes it, or by a stranger.
        No hurry.
        """
        state = self._state(lane)  # it may have been forgotten meanwhile
        if state.empty and due_at < state.tried_at:
            due_at = now + LOCKED
        if state.due_at is None or due_at < state.due_at:
            state.due_at = due_at
        return due_at <= now

    def next_due(self, served: Iterable[Serves]) -> float | None:
        """When the next task is due that anybody here can run and no gate keeps."""
        gates = self.gates if self.gates.queues or self.gates.types else None
        times = [
            state.due_at if gates is None else max(state.due_at, gates.opens_at(lane))
            for serves in served
            for rank in self._of(serves)
            for lane, state in rank
            if state.due_at is not None
        ]
        first = min(times, default=inf)
        return None if first == inf else first

    def windows(self, newer: timedelta, older: timedelta | None) -> list[tuple[Lane, datetime, Mark]]:
        """For each lane the stretch from ``newer`` to ``older`` before its mark: its lower end, and its upper end."""
        stretches = []
        for lane, state in self._lanes.items():
            if state.mark > BEGINNING:
                high = state.mark if not newer else Mark(_back(state.mark.run_at, newer), NIL)
                low = BEGINNING.run_at if older is None else _back(state.mark.run_at, older)
                stretches.append((lane, low, high))
        return stretches

    def forget(self, now: float) -> None:
        """Drop lanes that nobody has seen a task in for a while."""
        for lane in [lane for lane, state in self._lanes.items() if state.due_at is None and now - state.seen_at > FORGET]:
            del self._lanes[lane]
            self._served.clear()

    def _state(self, lane: Lane) -> _State:
        state = self._lanes.get(lane)
        if state is None:
            state = self._lanes[lane] = _State()
            self._served.clear()
        return state

    def _of(self, serves: Serves) -> list[list[tuple[Lane, _State]]]:
        """The lanes that a class of sessions can run, rank by rank. Found out once: with hundreds of lanes each claim would pay for it."""
        ranks = self._served.get(serves)
        if ranks is None:
            if len(self._served) >= MOST_CLASSES:
                self._served.clear()
            types, queues = {name for name, _, _ in serves.defaults}, serves.queues
            by_priority: dict[int, list[tuple[Lane, _State]]] = {}
            for lane, state in self._lanes.items():
                if lane.task_type in types and (queues is None or lane.queue in queues):
                    by_priority.setdefault(lane.priority, []).append((lane, state))
            ranks = self._served[serves] = [rank for _, rank in sorted(by_priority.items())]
        return ranks


def _back(time: datetime, by: timedelta) -> datetime:
    return BEGINNING.run_at if time - BEGINNING.run_at < by else time - by
