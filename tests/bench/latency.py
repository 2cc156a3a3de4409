"""How long from the request that creates a task to the start of its handler, and how late scheduled tasks start; roles in processes."""

import json
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from typing import Any

from creates import _up
from rig import HERE, Rig, once, percentiles, until


async def creation(rig: Rig, *, rate: float, n: int, beside: bool = False) -> dict[str, Any]:
    """Milliseconds from the client's clock before the request to the handler's start. ``beside``: API and scheduler in one process."""
    crew = await _crew(rig, beside=beside)
    subprocess.run([sys.executable, str(HERE / "client.py"), "trickle", "18080", str(rate), str(n)], check=True)
    time.sleep(0.5)
    return _late(rig, crew, n)


async def spread(rig: Rig, *, rate: float = 200, n: int = 1_000) -> dict[str, Any]:
    """How late tasks start that are due one after the other, ``rate`` a second."""
    crew = await _crew(rig)
    begins = time.time() + 3
    _create([(i, begins + i / rate) for i in range(n)])
    time.sleep(begins + n / rate - time.time() + 1)
    return _late(rig, crew, n)


async def at_once(rig: Rig, *, n: int = 10_000) -> dict[str, Any]:
    """How late tasks start that are all due at one instant."""
    crew = await _crew(rig)
    at = time.time() + 5
    _create([(i, at) for i in range(n)])
    time.sleep(at - time.time() + 3)
    return _late(rig, crew, n)


async def _crew(rig: Rig, *, beside: bool = False) -> list[Any]:
    dsn = await rig.database()
    crew = [rig.start(*(("api", "scheduler") if beside else ("scheduler",)), dsn=dsn), rig.start("worker", dsn="")]
    crew += [] if beside else [rig.start("api", dsn=dsn)]
    until(lambda: _up("http://127.0.0.1:18080/readyz"), seconds=20)
    time.sleep(1.5)  # the worker connects
    return crew


def _create(tasks: list[tuple[int, float]]) -> None:
    for at in range(0, len(tasks), 10_000):
        body = [
            {"task_type": "noop", "payload": {"i": i, "t": due, "p": "x" * 55}, "run_at": datetime.fromtimestamp(due, UTC).isoformat()}
            for i, due in tasks[at : at + 10_000]
        ]
        request = urllib.request.Request("http://127.0.0.1:18080/api/tasks/batch", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()


def _late(rig: Rig, crew: list[Any], n: int) -> dict[str, Any]:
    rig.stop(*crew)
    seen = [row for row in rig.seen() if row[0] >= 0]
    if not once(seen, n):
        raise AssertionError(f"void: {len(seen)} starts of {len({s[0] for s in seen})} tasks, of {n}")
    late = [start - reference for _, reference, start in seen]
    return percentiles(late) | {"early": sum(value < 0 for value in late)}
