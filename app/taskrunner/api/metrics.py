"""``GET /metrics``: what this process counts, and what there is in the database, asked when somebody scrapes."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import structlog
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from taskrunner.api.errors import problem_of
from taskrunner.api.kept import Kept
from taskrunner.api.routes import Answer, Handle, Route
from taskrunner.domain.access import Scope
from taskrunner.domain.errors import TaskrunnerError
from taskrunner.domain.histogram import Histogram
from taskrunner.kit.metrics import gauges, histograms, rendered
from taskrunner.store.stats import Backlog, Gauge, Stats

log = structlog.get_logger()
TEXT = "text/plain"
GONE = 499  # the client hung up: the word of nginx for it
STATES = ("ready", "scheduled", "queued", "running")
# What the statement list_gauges says: the metric, what it is, and its labels.
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "taskrunner_worker_sessions": ("live worker sessions", ("status",)),
    "taskrunner_type_workers": ("live worker sessions that serve the type", ("task_type",)),
    "taskrunner_paused": ("1 for each queue or type that is paused", ("scope", "name")),
    "taskrunner_database_dead_tuples": ("rows that vacuum has to remove, as PostgreSQL estimates", ("table",)),
    "taskrunner_database_table_bytes": ("size of the table with its indexes", ("table",)),
    "taskrunner_database_oldest_transaction_age_seconds": ("age of the oldest transaction that keeps dead rows from vacuum", ()),
    "taskrunner_database_prepared_transactions": ("prepared transactions", ()),
    "taskrunner_database_leaf_days_ahead": ("days after today for which finished tasks have a leaf", ()),
}


class DatabaseMetrics(Collector):
    """Shows what was asked last. Somebody must :meth:`refresh` it before each scrape."""

    def __init__(self, stats: Stats, backlog: Kept[list[Backlog]]) -> None:
        self._backlog = backlog
        self._gauges = Kept(stats.gauges)
        self._lots: Sequence[Backlog] = ()
        self._found: Sequence[Gauge] = ()
        self._up = False

    async def refresh(self) -> None:
        """Ask the database, unless it was asked just now. While it is away nothing is shown of it but that."""
        try:
            self._lots, self._found, self._up = await self._backlog.get(), await self._gauges.get(), True
        except TaskrunnerError as error:
            log.warning("metrics of the database could not be asked", error=str(error))
            self._lots, self._found, self._up = (), (), False

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        yield gauges("taskrunner_database_up", "1 while the database answers", (), {(): int(self._up)})
        counts = {(lot.queue, lot.task_type, state): getattr(lot, state) for lot in self._lots for state in STATES}
        yield gauges("taskrunner_tasks", "live tasks: to be claimed now, for later, at a worker", ("queue", "task_type", "state"), counts)
        ages = {(lot.queue, lot.task_type): lot.oldest_ready_age for lot in self._lots if lot.oldest_ready_age is not None}
        about = "how long the oldest ready task has waited, from its time or its creation"
        yield gauges("taskrunner_tasks_oldest_ready_age_seconds", about, ("queue", "task_type"), ages)
        for name, (about, labels) in GAUGES.items():
            found = {tuple(one.words): one.value for one in self._found if one.name == name}
            yield gauges(name, about, labels, found)


class Requests(Collector):
    """Counts requests by route, which are few, and never by path."""

    def __init__(self) -> None:
        self._took: dict[tuple[str, str, str], Histogram] = {}

    def counted(self, route: Route, handle: Handle) -> Handle:
        """``handle``, with each of its answers counted."""
        method, path = route.method, route.path

        async def counting(request: web.Request) -> web.StreamResponse:
            began = perf_counter()
            status = GONE
            try:
                response = await handle(request)
                status = response.status
            except Exception as error:
                status = problem_of(error).status
                raise
            finally:
                self.observe(method, path, status, perf_counter() - began)
            return response

        return counting

    def observe(self, method: str, path: str, status: int, seconds: float) -> None:
        """One answer of the route."""
        key = (method, path, str(status))
        (self._took.get(key) or self._took.setdefault(key, Histogram())).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """The one metric; its count is that of the requests."""
        labels = ("method", "route", "status")
        yield histograms("taskrunner_http_request_duration_seconds", "from a request to its answer", labels, {**self._took})


class MetricsRoute:
    """The handler of ``/metrics``."""

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]]) -> None:
        self._registry = registry
        self._refresh = refresh

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        answers: dict[int, Any] = {200: Answer("the metrics, in Prometheus' text format or as OpenMetrics", str, kind=TEXT)}
        return [Route(method="GET", path="/metrics", handler=self.metrics, group="service", scope=Scope.READ, answers=answers)]

    async def metrics(self, request: web.Request) -> web.Response:
        """What this process has counted since it began, and what there is in the database."""
        await self._refresh()
        body, kind = rendered(self._registry, request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: kind})
