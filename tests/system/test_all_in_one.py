"""``taskrunner`` alone: everything in one process, with the embedded database."""

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults.processes import Process
from faults.waiting import now, until
from system.calls import call

Launch = Callable[..., Process]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def start(launch: Launch, data_dir: Path) -> Callable[[], Process]:
    # The watcher of the embedded server must notice by itself when we are gone.
    return lambda: launch(f"--data-dir={data_dir}", "--http-port=0", "--scheduler-port=0", "--worker-port=0", dies_with_us=False)


def family(process: Process) -> list[psutil.Process]:
    """Everything that was started by it: the watcher, PostgreSQL and its backends."""
    found = psutil.Process(process.pid).children(recursive=True)
    assert any("postgres" in one.name() for one in found), found
    return found


async def gone(processes: list[psutil.Process], *, within: float) -> None:
    await until(
        lambda: not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE], within=within, what="their end"
    )


def in_a_second(seconds: float = 1) -> str:
    return datetime.fromtimestamp(now() + seconds, UTC).isoformat()


async def test_the_first_example_runs_on_time(start: Callable[[], Process], data_dir: Path) -> None:
    one = start()
    api = (await one.said("ready"))["api"]
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    due = datetime.fromtimestamp(now(), UTC) + timedelta(seconds=1)
    body = {"task_type": "email", "payload": {"to": "user@example.com", "message": "Hello"}, "run_at": due.isoformat()}
    status, created = call("POST", f"{api}/api/tasks", body)
    assert (status, created["status"]) == (201, "PENDING")
    status, done = call("GET", f"{api}/api/tasks/{created['id']}?wait=10")
    assert (status, done["status"], done["error"]) == (200, "COMPLETED", None)
    late = datetime.fromisoformat(done["finished_at"]) - due
    assert timedelta(0) < late < timedelta(seconds=1), f"it was done {late} after its time"
    mail: dict[str, Any] = done["result"]
    assert any(str(path) in str(mail) for path in data_dir.rglob("*.eml")), mail
    others = family(one)
    one.signal(signal.SIGINT)
    assert await one.ended(within=30) == 0
    await gone(others, within=1)


async def test_a_killed_one_leaves_no_server_and_loses_nothing(start: Callable[[], Process]) -> None:
    one = start()
    api = (await one.said("ready"))["api"]
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    body = {"task_type": "email", "payload": {"to": "user@example.com", "message": "later"}, "run_at": in_a_second(2)}
    created = call("POST", f"{api}/api/tasks", body)[1]
    others = family(one)
    one.popen.kill()
    assert await one.ended(within=5) == -signal.SIGKILL
    await gone(others, within=10)

    again = start()
    api = (await again.said("ready"))["api"]
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    assert call("GET", f"{api}/api/tasks/{created['id']}?wait=20")[1]["status"] == "COMPLETED"
    others = family(again)
    again.signal(signal.SIGTERM)
    assert await again.ended(within=30) == 0
    await gone(others, within=1)
    assert again.events("closing took too long") == []


async def test_a_second_signal_ends_it_at_once(start: Callable[[], Process]) -> None:
    one = start()
    api = (await one.said("ready"))["api"]
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    others = family(one)
    one.signal(signal.SIGTERM)
    await one.said("stopping")
    asked = now()
    one.signal(signal.SIGINT)
    assert await one.ended(within=5) in (128 + signal.SIGINT, 0), "it may have been quicker"
    assert now() - asked < 2
    await gone(others, within=10)
