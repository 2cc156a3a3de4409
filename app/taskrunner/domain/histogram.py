"""Durations by bucket: what is kept of many of them, and what it still says about their distribution."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

# Seconds: the upper bounds of the buckets; one more bucket takes what is longer.
BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
SIZE = len(BOUNDS) + 1


def bucket(seconds: float) -> int:
    """The number of the bucket that takes ``seconds``."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The duration in seconds that ``share`` of the counted ones do not exceed, interpolated within its bucket; None where none is counted.

    What is beyond the last bound is said to be as long as that.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below, low = 0, 0.0
    for n, high in zip(counts, BOUNDS, strict=False):
        if n and below + n >= rank:
            return low + (high - low) * (rank - below) / n
        below, low = below + n, high
    return BOUNDS[-1]


def add(into: list[int], counts: Iterable[int]) -> None:
    """Add ``counts`` to a histogram of the same buckets, in place."""
    into[:] = [a + b for a, b in zip(into, counts, strict=True)]
