"""What a worker does, as metrics."""

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from taskrunner.kit.metrics import counters, gauges, histograms
from taskrunner.worker.session import Session


class WorkerMetrics(Collector):
    """Reads a session, from another thread than the worker's. ``connected`` says whether a scheduler has it now."""

    def __init__(self, session: Session, connected: Callable[[], bool]) -> None:
        self._session = session
        self._connected = connected

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        executor, outbox = self._session.executor, self._session.outbox
        yield histograms("taskrunner_task_run_seconds", "how long handlers ran", ("queue", "task_type"), executor.times.histograms())
        ended = {(outcome.name.lower(),): n for outcome, n in [*outbox.confirmed.items()] if outcome.name}
        yield counters("taskrunner_worker_attempts", "attempts that ended, as confirmed by a scheduler", ("outcome",), ended)
        values = {
            "taskrunner_worker_slots": ("tasks that it runs at once", executor.slots),
            "taskrunner_worker_running_tasks": ("tasks whose handler runs", len(executor.floor.running)),
            "taskrunner_worker_lingering_tasks": (
                "handlers that do not stop although their outcome was sent",
                len(executor.floor.lingering),
            ),
            "taskrunner_worker_waiting_tasks": ("tasks at hand that wait for a slot", executor.waiting),
            "taskrunner_worker_unconfirmed_tasks": ("outcomes that no scheduler has confirmed", outbox.size),
            "taskrunner_worker_connected": ("1 while a scheduler has this worker", int(self._connected())),
        }
        for name, (about, value) in values.items():
            yield gauges(name, about, (), {(): value})
