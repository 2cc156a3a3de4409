"""What this process sees happen in the database, counted in memory since it began: for metrics, and for counts by the minute."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeAlias

import orjson

from taskrunner.domain.histogram import TASKS, Histogram

Pair: TypeAlias = tuple[str, str]  # queue and type
MOST = 1_000  # pairs that are counted apart
OTHER = ("other", "other")  # the rest of them
SAMPLES = 8  # tasks of a claim whose delay is looked at; each stands for its share of the claim
EPOCH = 946_684_800_000  # milliseconds from 1970, where the times of ids begin, to 2000, where those of PostgreSQL do


class Batches:
    """Statements for many tasks at once: how long each took, and of how many tasks it was."""

    def __init__(self) -> None:
        self.seconds = Histogram()
        self.tasks = Histogram(TASKS)

    @contextmanager
    def timed(self, tasks: int | None = None) -> Iterator[None]:
        """A statement that is done when the block is; one that failed is not counted. Without ``tasks`` somebody observes them."""
        began = perf_counter()
        yield
        self.seconds.observe(perf_counter() - began)
        if tasks is not None:
            self.tasks.observe(tasks)


class Meter:
    """Counts, and asks nobody. What it is told of are batches: nothing here is done for each task."""

    def __init__(self) -> None:
        self._pairs: set[Pair] = {OTHER}
        self.created: Counter[Pair] = Counter()
        self.starts: dict[Pair, Histogram] = {}  # seconds from when it could start to the claim
        self.ended: Counter[tuple[Pair, str]] = Counter()  # by status
        self.retried: Counter[Pair] = Counter()
        self.claims = Batches()
        self.settles: defaultdict[str, Batches] = defaultdict(Batches)  # by statement
        self.creates = Batches()
        self.stale = 0
        self.refused = 0
        self.sessions_lost = 0
        self.taken_back = 0

    def create(self, queue: str, task_type: str, n: int) -> None:
        """``n`` tasks were created."""
        self.created[self._pair(queue, task_type)] += n

    def claim(self, queue: str, task_type: str, claimed_at: bytes, run_ats: bytes, ids: bytes) -> None:
        """Tasks were claimed together; times as PostgreSQL sends them. Only a few of them are looked at.

        A task whose time was over when it was created could start no sooner than that: its id says when.
        """
        pair = self._pair(queue, task_type)
        starts = self.starts.get(pair) or self.starts.setdefault(pair, Histogram())
        n = len(ids) // 16
        samples = min(n, SAMPLES)
        now = int.from_bytes(claimed_at, signed=True)
        for sample in range(samples):
            first, after = n * sample // samples, n * (sample + 1) // samples
            at = (first + after) // 2
            run_at = int.from_bytes(run_ats[at * 8 : at * 8 + 8], signed=True)
            created = int.from_bytes(ids[at * 16 : at * 16 + 6]) - EPOCH - 1  # some databases round up to the millisecond
            starts.observe(max(0, now - max(run_at, 1000 * created)) / 1e6, after - first)

    def end(self, told: str | None) -> None:
        """What a statement says that ended, or is tried again: JSON of [queue, type, status or null, n]."""
        if told is None:
            return
        for queue, task_type, status, n in orjson.loads(told):
            pair = self._pair(queue, task_type)
            if status is None:
                self.retried[pair] += n
            else:
                self.ended[pair, status] += n

    def _pair(self, queue: str, task_type: str) -> Pair:
        pair = (queue, task_type)
        if pair not in self._pairs:
            if len(self._pairs) > MOST:
                return OTHER
            self._pairs.add(pair)
        return pair
