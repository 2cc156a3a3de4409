"""What a scheduler holds, as metrics; what it does is counted in the store."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from taskrunner.kit.metrics import gauges
from taskrunner.scheduler.roster import Roster
from taskrunner.scheduler.settler import Settler


class SchedulerMetrics(Collector):
    """Reads the roster and the settler."""

    def __init__(self, roster: Roster, settler: Settler) -> None:
        self._roster = roster
        self._settler = settler

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        sessions = [*self._roster]
        values = {
            "taskrunner_scheduler_workers": ("workers connected to this scheduler", len(sessions)),
            "taskrunner_scheduler_slots": ("slots of those workers", sum(session.slots for session in sessions)),
            "taskrunner_scheduler_outstanding_tasks": ("tasks sent to them and not reported on", sum(s.outstanding for s in sessions)),
            "taskrunner_scheduler_worker_lag_seconds": ("how late the loop of the latest is", max((s.lag for s in sessions), default=0.0)),
            "taskrunner_scheduler_unsettled_tasks": ("outcomes that wait to be written", self._settler.waiting),
        }
        for name, (about, value) in values.items():
            yield gauges(name, about, (), {(): value})
