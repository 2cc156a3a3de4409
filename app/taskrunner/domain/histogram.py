"""Durations and sizes by bucket: what is kept of many of them, and what it still says about their distribution."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

# The upper bounds of the buckets; one more bucket takes what is longer, or larger.
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
TASKS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


class Histogram:
    """How many values there were by bucket, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, n: int = 1) -> None:
        """``n`` values like this one."""
        self.counts[bisect_left(self.bounds, value)] += n
        self.total += value * n

    def observe_all(self, values: list[float]) -> None:
        """All of them, which are sorted for it: a look for each bound instead of one for each value."""
        values.sort()
        before = 0
        for bucket, bound in enumerate(self.bounds):
            until = bisect_right(values, bound, before)
            self.counts[bucket] += until - before
            before = until
        self.counts[-1] += len(values) - before
        self.total += sum(values)

    def add(self, other: "Histogram") -> None:
        """Take in what another one of the same buckets has."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def quantile(self, share: float) -> float | None:
        """What ``share`` of the values do not exceed, interpolated within its bucket; None where there are none.

        What is beyond the last bound is said to be as much as that.
        """
        rank = share * sum(self.counts)
        if not rank:
            return None
        below, low = 0, 0.0
        for n, high in zip(self.counts, self.bounds, strict=False):
            if n and below + n >= rank:
                return low + (high - low) * (rank - below) / n
            below, low = below + n, high
        return self.bounds[-1]
