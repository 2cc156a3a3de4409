"""What happened, over time and by error, and how much there is: ``/api/stats`` and ``/api/errors``."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from taskrunner.api import shapes
from taskrunner.api.documents import answer, moment
from taskrunner.api.filters import Word, parameters_of, read_query
from taskrunner.api.kept import Kept
from taskrunner.api.routes import Answer, Route
from taskrunner.domain.access import Scope
from taskrunner.domain.lifecycle import FINISHED, Status
from taskrunner.store.stats import Backlog, Outcome, Point, Stats

LONGEST = 31 * 86_400
USUAL_POINTS = 120
BY_THE_MINUTE = 86_400  # seconds for which there are counts by the minute; what is older is by the hour
STEPS = (60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 86_400)
QUANTILES = {"start_p50": 0.5, "start_p95": 0.95, "start_p99": 0.99}

Window = Annotated[int, Field(ge=60, le=LONGEST)]


class StatsQuery(BaseModel):
    """The parameters of ``GET /api/stats``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: Window = Field(3_600, description="how far back, in seconds")
    step: Annotated[int, Field(ge=60, le=86_400, multiple_of=60)] | None = Field(
        None, description="seconds that a point sums up, whole minutes; without it as many as make a good chart"
    )
    queue: Word | None = Field(None, description="only this queue")
    task_type: Word | None = Field(None, description="only this type")


class ErrorsQuery(BaseModel):
    """The parameters of ``GET /api/errors``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: Window = Field(86_400, description="how far back, in seconds; counted by whole hours")
    task_type: Word | None = Field(None, description="only this type")


class StatsRoutes:
    """Handlers of counts over time and by error."""

    def __init__(self, stats: Stats, backlog: Kept[list[Backlog]]) -> None:
        self._stats = stats
        self._backlog = backlog
        self._outcomes = Kept(self._stats.outcomes)

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        return [
            Route(
                method="GET",
                path="/api/stats",
                handler=self.stats,
                group="service",
                scope=Scope.READ,
                parameters=parameters_of(StatsQuery),
                answers={200: Answer("the counts", shapes.Stats)},
            ),
            Route(
                method="GET",
                path="/api/errors",
                handler=self.errors,
                group="service",
                scope=Scope.PAYLOADS,
                parameters=parameters_of(ErrorsQuery),
                answers={200: Answer("the errors, most frequent first", shapes.Errors)},
            ),
        ]

    async def stats(self, request: web.Request) -> web.Response:
        """Tasks by status; what was created, ended and tried again, and how late tasks were claimed, point by point.

        A point sums up ``step`` seconds, the last one those so far. ``start_p50``, ``_p95`` and ``_p99`` are seconds from ``run_at`` (from
        the creation where that is later) to the claim for a worker, null where nothing was claimed. Points lag by a few seconds.
        """
        asked = read_query(StatsQuery, request.query)
        step = asked.step or next((step for step in STEPS if asked.window <= step * USUAL_POINTS), STEPS[-1])
        if asked.window > BY_THE_MINUTE:
            step = -(-step // 3_600) * 3_600
        n = -(-asked.window // step)
        points = await self._stats.points(n, step, queue=asked.queue, task_type=asked.task_type)
        backlog = [lot for lot in await self._backlog.get() if _fits(lot, asked)]
        outcomes = [outcome for outcome in await self._outcomes.get() if _fits(outcome, asked)]
        totals = Point()
        for _, point in points:
            totals.add(point)
        return answer(
            {
                "tasks": _by_status(backlog, outcomes),
                "window": n * step,
                "step": step,
                "now": _now(backlog),
                "totals": _point(totals),
                "points": [{"at": moment(datetime.fromtimestamp(at, UTC)), **_point(point)} for at, point in points],
            }
        )

    async def errors(self, request: web.Request) -> web.Response:
        """FAILED tasks by type and kind of error.

        ``message`` is an error without its ids and numbers; as the filter ``error`` it finds the tasks, also for bulk operations.
        """
        asked = read_query(ErrorsQuery, request.query)
        found = await self._stats.failures(asked.window, task_type=asked.task_type)
        return answer(
            {
                "items": [
                    {
                        "task_type": one.task_type,
                        "message": one.message,
                        "count": one.count,
                        "last_at": moment(one.last_at),
                        "example_id": one.example_id,
                    }
                    for one in found
                ]
            }
        )


def _fits(lot: Backlog | Outcome, asked: StatsQuery) -> bool:
    return asked.queue in (None, lot.queue) and asked.task_type in (None, lot.task_type)


def _by_status(backlog: Iterable[Backlog], outcomes: Iterable[Outcome]) -> dict[str, int]:
    """All six statuses, zero or not."""
    found = dict.fromkeys((status.value for status in Status), 0)
    for lot in backlog:
        found["PENDING"] += lot.ready + lot.scheduled
        found["QUEUED"] += lot.queued
        found["RUNNING"] += lot.running
    for outcome in outcomes:
        found[Status(outcome.outcome)] += outcome.n
    assert found.keys() >= FINISHED
    return found


def _now(backlog: list[Backlog]) -> dict[str, Any]:
    return {
        "ready": sum(lot.ready for lot in backlog),
        "scheduled": sum(lot.scheduled for lot in backlog),
        "running": sum(lot.queued + lot.running for lot in backlog),
        "oldest_ready_age": max((lot.oldest_ready_age for lot in backlog if lot.oldest_ready_age is not None), default=None),
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "created": point.created,
        "completed": point.completed,
        "failed": point.failed,
        "cancelled": point.cancelled,
        "retried": point.retried,
        **{name: point.starts.quantile(share) for name, share in QUANTILES.items()},
    }
