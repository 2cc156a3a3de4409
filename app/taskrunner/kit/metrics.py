"""Metrics of a process: each room has a collector, which reads plain numbers when it is asked; all are in one registry."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from taskrunner.domain.histogram import Histogram
from taskrunner.kit.loops import jittered

LABELLED = 200  # label values, or sets of them, that a metric has at most; the rest is one called "other"
OTHER = "other"
LOOK = 1.0  # seconds between two looks at how late a loop is

Labels = tuple[str, ...]  # values, in the order of their names: the keys of what is shown
T = TypeVar("T", int, float, Histogram)


class Info(Collector):
    """Which program this is."""

    def __init__(self, **words: str) -> None:
        self._words = words

    def collect(self) -> Iterator[Metric]:
        """The one metric."""
        yield InfoMetricFamily("taskrunner_build", "version and roles of the process", value=self._words)


class LoopLag(Collector):
    """How late a loop comes to what it was to do: looked at once a second. Somebody must :meth:`run` it on that loop."""

    def __init__(self, loop: str) -> None:
        self._name = loop
        self._late = Histogram()

    async def run(self) -> None:
        """Look, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            seconds = jittered(LOOK)
            due_at = loop.time() + seconds
            await asyncio.sleep(seconds)
            self._late.observe(max(0.0, loop.time() - due_at))

    def collect(self) -> Iterator[Metric]:
        """The one metric."""
        yield histograms(
            "taskrunner_event_loop_lag_seconds", "how late the loop was, looked at once a second", ("loop",), {(self._name,): self._late}
        )


@asynccontextmanager
async def watched(registry: CollectorRegistry, loop: str) -> AsyncIterator[None]:
    """The running loop's lag is in ``registry`` from now on, as that of the loop called so."""
    lag = LoopLag(loop)
    registry.register(lag)
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(lag.run(), name="loop lag")
        try:
            yield
        finally:
            looking.cancel()


def new_registry(**words: str) -> CollectorRegistry:
    """An empty registry, but for what the operating system knows of the process, and ``words`` about it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Info(**words))
    return registry


def rendered(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """All metrics in the text format that ``accept`` prefers, and its content type."""
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def counters(name: str, about: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """A counter; ``name`` is without its ``_total``."""
    family = CounterMetricFamily(name, about, labels=labels)
    for words, value in bounded(values, len(labels)):
        family.add_metric(words, value)
    return family


def gauges(name: str, about: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """A gauge. Those beyond the bound are summed up."""
    family = GaugeMetricFamily(name, about, labels=labels)
    for words, value in bounded(values, len(labels)):
        family.add_metric(words, value)
    return family


def histograms(name: str, about: str, labels: Sequence[str], values: Mapping[Any, Histogram]) -> Metric:
    """A histogram, in the cumulative form that Prometheus wants."""
    family = HistogramMetricFamily(name, about, labels=labels)
    for words, histogram in bounded(values, len(labels)):
        counts, sum_ = [*histogram.counts], histogram.total  # another thread may go on counting
        reached, buckets = 0, list[tuple[str, float]]()
        for bound, n in zip((*map(str, histogram.bounds), "+Inf"), counts, strict=True):
            reached += n
            buckets.append((bound, reached))
        family.add_metric(words, buckets, sum_)
    return family


def bounded(values: Mapping[Any, T], width: int) -> Iterable[tuple[Labels, T]]:
    """At most LABELLED of ``values``; the others as one, all of whose labels are "other"."""
    entries = list(values.items())
    yield from entries[:LABELLED]
    if len(entries) > LABELLED:
        yield (OTHER,) * width, _sum([value for _, value in entries[LABELLED:]])


def _sum(values: list[T]) -> T:
    first = values[0]
    if isinstance(first, Histogram):
        whole = Histogram(first.bounds)
        for value in values:
            assert isinstance(value, Histogram)
            whole.add(value)
        return whole
    return sum(values)
