"""A backup of a running service, and what becomes of it elsewhere."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.database import Server
from faults.processes import Process
from faults.waiting import until
from system.calls import call

pytestmark = pytest.mark.slow
LEASE = 2
PORTS = {"HTTP_PORT": "0", "SCHEDULER_PORT": "0", "WORKER_PORT": "0"}


def program(server: Server, name: str, *arguments: str, **options: Any) -> None:
    """One of PostgreSQL's own, against that server."""
    command = [str(server._binaries / name), "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, **options)
    assert done.returncode == 0, done.stderr


async def begin(launch: Callable[..., Process], dsn: str) -> tuple[Process, str]:
    process = launch(**PORTS, DB_DSN=dsn, TASKRUNNER_HANDLERS="worker.wire_tasks", TASKRUNNER_LEASE=str(LEASE))
    api = (await process.said("ready"))["api"]
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    return process, api


async def test_a_dump_of_a_running_service_runs_on_elsewhere(plain: Server, launch: Callable[..., Process], tmp_path: Path) -> None:
    """What was finished is history; what waited waits; what ran, runs again once its worker is known to be gone."""
    await plain.start()
    service, api = await begin(launch, plain.dsn)
    go = tmp_path / "go"
    bodies: dict[str, dict[str, Any]] = {
        "done": {"task_type": "wire.echo", "payload": {"n": 1}},
        "later": {"task_type": "wire.echo", "payload": "later", "delay": 3600, "unique_key": "k", "metadata": {"m": 1}},
        "runs": {"task_type": "wire.wait", "payload": str(go)},
    }
    ids = {name: call("POST", f"{api}/api/tasks", body)[1]["id"] for name, body in bodies.items()}
    before = call("GET", f"{api}/api/tasks/{ids['done']}?wait=20")[1]
    await until(lambda: call("GET", f"{api}/api/tasks/{ids['runs']}")[1]["status"] == "RUNNING", within=10, what="the one that runs")
    later = call("GET", f"{api}/api/tasks/{ids['later']}")[1]
    dump = tmp_path / "dump"
    program(plain, "pg_dump", "--format=custom", f"--file={dump}", "taskrunner")
    service.kill()

    program(plain, "createdb", "elsewhere")
    program(plain, "pg_restore", "--dbname=elsewhere", "--exit-on-error", str(dump))
    _, api = await begin(launch, plain.at(plain.port, "elsewhere"))
    assert call("GET", f"{api}/api/tasks/{ids['done']}")[1] == before
    assert call("GET", f"{api}/api/tasks/{ids['later']}")[1] == later
    assert call("POST", f"{api}/api/tasks", bodies["later"])[1]["id"] == ids["later"], "its key is still taken"
    go.touch()
    again = call("GET", f"{api}/api/tasks/{ids['runs']}?wait=30")[1]
    assert (again["status"], again["result"]) == ("COMPLETED", "seen")
    assert call("POST", f"{api}/api/tasks/{ids['later']}/run")[0] == 200
    assert call("GET", f"{api}/api/tasks/{ids['later']}?wait=20")[1]["status"] == "COMPLETED"
