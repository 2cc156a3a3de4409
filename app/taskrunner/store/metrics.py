"""What this process has done with the database, as metrics."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from psycopg_pool import AsyncConnectionPool

from taskrunner.domain.histogram import Histogram
from taskrunner.kit.metrics import counters, gauges, histograms
from taskrunner.store.meter import Batches, Meter
from taskrunner.store.pool import Connection

KIND = ("queue", "task_type")
SETTLES = {"complete_tasks": "completed", "fail_tasks": "error", "give_back_tasks": "given_back", "cancel_tasks": "cancelled"}


class StoreMetrics(Collector):
    """Reads the meter and the pool of a store."""

    def __init__(self, meter: Meter, pool: AsyncConnectionPool[Connection]) -> None:
        self._meter = meter
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        yield from self._tasks()
        yield from self._statements()
        yield from self._connections()

    def _tasks(self) -> Iterator[Metric]:
        meter = self._meter
        ended = {(queue, task_type, status.lower()): n for ((queue, task_type), status), n in [*meter.ended.items()]}
        yield counters("taskrunner_tasks_created", "tasks created over HTTP", KIND, dict(meter.created))
        yield histograms(
            "taskrunner_task_start_delay_seconds", "from when a task could start to its claim for a worker", KIND, dict(meter.starts)
        )
        yield counters("taskrunner_tasks_finished", "tasks that ended, as committed", (*KIND, "outcome"), ended)
        yield counters(
            "taskrunner_tasks_retried", "attempts that failed, or whose worker died, and are made again", KIND, dict(meter.retried)
        )
        lost = (
            ("taskrunner_stale_results", "results that came too late: somebody else had the task", meter.stale),
            ("taskrunner_refused_results", "results that PostgreSQL could not store; their tasks fail", meter.refused),
            ("taskrunner_worker_sessions_lost", "worker sessions that ended without a word", meter.sessions_lost),
            ("taskrunner_tasks_taken_back", "tasks taken back from workers that died or never heard of them", meter.taken_back),
        )
        for name, about, n in lost:
            yield counters(name, about, (), {(): n})

    def _statements(self) -> Iterator[Metric]:
        meter = self._meter
        settles = {(SETTLES[statement],): batches for statement, batches in [*meter.settles.items()]}
        for verb, labels, batches in (
            ("create", (), {(): meter.creates}),
            ("claim", (), {(): meter.claims}),
            ("settle", ("kind",), settles),
        ):
            seconds, tasks = _parts(batches)
            yield histograms(f"taskrunner_{verb}_duration_seconds", f"a statement to {verb} tasks, with its commit", labels, seconds)
            yield histograms(f"taskrunner_{verb}_batch_tasks", f"tasks in a statement to {verb}", labels, tasks)

    def _connections(self) -> Iterator[Metric]:
        pool = self._pool.get_stats()
        idle, size = pool.get("pool_available", 0), pool.get("pool_size", 0)
        waited = pool.get("requests_wait_ms", 0) / 1000
        yield gauges("taskrunner_pool_connections", "connections of the pool", ("state",), {("idle",): idle, ("used",): size - idle})
        yield gauges("taskrunner_pool_waiting", "requests that wait for a connection", (), {(): pool.get("requests_waiting", 0)})
        yield counters("taskrunner_pool_wait_seconds", "time that requests have waited for a connection", (), {(): waited})
        yield counters("taskrunner_pool_errors", "requests that got no connection in time", (), {(): pool.get("requests_errors", 0)})
        yield counters("taskrunner_pool_connections_lost", "connections that broke", (), {(): pool.get("connections_lost", 0)})


def _parts(batches: Mapping[Any, Batches]) -> tuple[dict[Any, Histogram], dict[Any, Histogram]]:
    return {words: one.seconds for words, one in batches.items()}, {words: one.tasks for words, one in batches.items()}
