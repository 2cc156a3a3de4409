"""Processes that send their traces to a collector of the test's."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.processes import Process
from traces.sink import Sink, open_sink

Launch = Callable[..., Process]
PORTS = {"HTTP_PORT": "0", "SCHEDULER_PORT": "0", "WORKER_PORT": "0"}


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with open_sink() as one:
        yield one


@pytest.fixture
def launch(tmp_path: Path, dsn: str) -> Iterator[Launch]:
    """Start ``taskrunner`` with these settings; all are killed at the end."""
    started: list[Process] = []

    def start(**settings: Any) -> Process:
        known = {**PORTS, "DB_DSN": dsn, "TASKRUNNER_HANDLERS": "traces.trace_tasks", **settings}
        started.append(Process(tmp_path / f"{len(started)}.log", [], known))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def traced(launch: Launch, sink: Sink) -> Launch:
    """As ``launch``, with traces."""
    where = {"TASKRUNNER_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return lambda **settings: launch(**where, **settings)
