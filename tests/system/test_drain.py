"""A worker that is asked over HTTP to drain."""

from collections.abc import Callable
from pathlib import Path

from faults.cluster import free_ports
from faults.processes import Process
from faults.waiting import until
from system.calls import call

TASKS = """
import asyncio
from taskrunner import Context, task

@task("nap")
async def nap(ctx: Context, payload: float) -> str:
    await asyncio.sleep(payload)
    return "rested"
"""


async def test_a_worker_that_is_asked_to_drain_finishes_what_it_runs_and_ends(launch: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / "naps.py").write_text(TASKS)
    (port,) = free_ports(1)
    office = launch(
        "--roles=api,scheduler", f"--data-dir={tmp_path / 'data'}", "--http-port=0", f"--scheduler-port={port}", TASKRUNNER_LEASE="1"
    )
    api = (await office.said("ready"))["api"]
    one = launch("--roles=worker", "--worker-port=0", "--handlers=naps", SCHEDULER_ADDRESS=f"127.0.0.1:{port}", PYTHONPATH=str(tmp_path))
    await one.said("connected")
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    task = call("POST", f"{api}/api/tasks", {"task_type": "nap", "payload": 1.0})[1]

    def workers() -> list[tuple[str, int]]:
        return [(worker["status"], worker["in_flight"]) for worker in call("GET", f"{api}/api/workers")[1]["items"]]

    await until(lambda: workers() == [("LIVE", 1)], within=10, what="the task at the worker")
    session = call("GET", f"{api}/api/workers")[1]["items"][0]["session"]
    status, told = call("POST", f"{api}/api/workers/{session}/drain", {})
    assert (status, told["status"]) == (202, "DRAINING")
    later = call("POST", f"{api}/api/tasks", {"task_type": "nap", "payload": 0.0, "delay": 0.5})[1]
    assert await one.ended(within=10) == 0
    await until(lambda: workers() == [("DEAD", 0)], within=5, what="the end of the session")
    assert office.events("a worker's session is over") == [], "it was not lost"
    assert call("GET", f"{api}/api/tasks/{task['id']}")[1]["result"] == "rested"
    assert call("GET", f"{api}/api/tasks/{later['id']}")[1]["status"] == "PENDING"
