"""How long handlers ran: each attempt adds a number to a list, and lists become histograms by the thousand."""

import threading

from taskrunner.domain.histogram import Histogram

FOLD = 1_000  # numbers in a list
MOST = 1_000  # pairs of queue and type that are kept apart
OTHER = ("other", "other")  # the rest of them


class RunTimes:
    """The worker's thread adds, and whoever asks for metrics reads, on another thread perhaps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lists: dict[tuple[str, str], list[float]] = {}
        self._histograms: dict[tuple[str, str], Histogram] = {}

    def of(self, queue: str, task_type: str) -> list[float]:
        """Where to append the seconds of each attempt. To be asked for with every batch, so that it never grows long."""
        pair = (queue, task_type)
        if pair not in self._lists and len(self._lists) >= MOST:
            pair = OTHER
        found = self._lists.setdefault(pair, [])
        if len(found) > FOLD:
            self._fold(pair, found)
        return found

    def histograms(self) -> dict[tuple[str, str], Histogram]:
        """Seconds by queue and type."""
        for pair, found in [*self._lists.items()]:
            self._fold(pair, found)
        return {**self._histograms}

    def _fold(self, pair: tuple[str, str], found: list[float]) -> None:
        with self._lock:
            seconds = found[:]
            del found[: len(seconds)]  # what is appended meanwhile stays
            histogram = self._histograms.get(pair) or self._histograms.setdefault(pair, Histogram())
            histogram.observe_all(seconds)
