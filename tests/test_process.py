"""Whole processes: how they start, what they load, how they end. Real sockets, real signals, a real embedded PostgreSQL."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskrunner.settings import Settings, env_name

MAIN = "import sys; from taskrunner.cli import main; sys.exit(main())"
ANY_PORT = ("--http-port=0", "--scheduler-port=0", "--worker-port=0", "--log-format=json")


class Running:
    """A process that says ``ready``, with what it said on the way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    def read(self, event: str) -> dict[str, Any]:
        """The first log line that begins with ``event``, once it is there."""
        for known in self.lines:
            if known["event"].startswith(event):
                return known
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(json.loads(line))
            if self.lines[-1]["event"].startswith(event):
                return self.lines[-1]
        raise AssertionError(f"no {event!r}, but {self.lines}")

    def end(self) -> tuple[int, str]:
        """The exit code and what else was printed."""
        out, err = self.process.communicate(timeout=50)
        self.lines += [json.loads(line) for line in err.splitlines()]
        return self.process.returncode, out

    def errors(self) -> list[str]:
        return [line["event"] for line in self.lines if line["level"] == "error"]


@contextmanager
def running(*arguments: str, program: str = MAIN, **variables: str) -> Iterator[Running]:
    """The command line ``arguments`` in a process of its own, killed at the end if it is still there."""
    environment = {name: value for name, value in os.environ.items() if name not in {env_name(name) for name in Settings.model_fields}}
    command = [sys.executable, "-c", program, *ANY_PORT, *arguments]
    process = subprocess.Popen(command, env=environment | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield Running(process)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def left_behind(data_dir: Path) -> list[list[str]]:
    """Processes that have ``data_dir`` in their command line."""
    found = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [line for line in found if any(str(data_dir) in word for word in line)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_in_one_starts_answers_and_ends_clean(data_dir: Path, number: signal.Signals) -> None:
    with running(f"--data-dir={data_dir}") as one:
        ready = one.read("ready")
        assert {"api", "scheduler", "worker", "database"} <= set(ready)
        with urllib.request.urlopen(f"{ready['api']}/api/healthz") as answer:
            assert answer.status == 200
        one.process.send_signal(number)
        assert one.end() == (0, "")
        assert one.errors() == []
    assert left_behind(data_dir) == []


def test_health_asks_it(data_dir: Path, unused_tcp_port_factory: Any) -> None:
    ports = [f"--{role}-port={unused_tcp_port_factory()}" for role in ("http", "scheduler", "worker")]
    health = [sys.executable, "-m", "taskrunner", "health", *ports]
    assert subprocess.run(health, capture_output=True, check=False).returncode == 1
    with running(f"--data-dir={data_dir}", *ports) as one:
        one.read("ready")
        one.read("connected")
        said = subprocess.run(health, capture_output=True, text=True, check=False)
        assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
        one.process.terminate()
        assert one.end()[0] == 0


@pytest.mark.parametrize(
    ("roles", "absent"),
    [("worker", ("psycopg", "psycopg_pool", "aiohttp.web", "taskrunner.store")), ("scheduler", ("aiohttp", "taskrunner.api"))],
)
def test_a_role_loads_no_more_than_it_needs(data_dir: Path, roles: str, absent: tuple[str, ...]) -> None:
    program = "import sys; from taskrunner.cli import main; code = main(); print(' '.join(sys.modules)); sys.exit(code)"
    with running(f"--roles={roles}", f"--data-dir={data_dir}", program=program) as one:
        one.read("ready")
        one.process.terminate()
        code, out = one.end()
    assert code == 0
    assert {"taskrunner.settings", f"taskrunner.{roles}.role"} <= set(out.split())
    assert set(absent) & set(out.split()) == set()


@pytest.mark.parametrize(("role", "port"), [("api", "HTTP_PORT"), ("scheduler", "SCHEDULER_PORT"), ("worker", "WORKER_PORT")])
def test_a_port_in_use_is_one_clear_line(data_dir: Path, role: str, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = {port: str(taken.getsockname()[1])}
        flag = f"--{port.lower().replace('_', '-')}={where[port]}"
        with running(f"--roles={role}", f"--data-dir={data_dir}", flag) as one:
            assert one.end() == (1, "")
    (error,) = one.errors()
    assert port in error
    assert where[port] in error
    assert "in use" in error


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--roles=worker", "--handlers=no.such.module"], r"no\.such\.module"),
        (["--roles=api", "--db-dsn=postgres//typo"], "DB_DSN"),
        (["--roles=api", "--data-dir=/dev/null/data"], "TASKRUNNER_DATA_DIR"),
        (["--roles=scheduler", "--scheduler-host=0.0.0.0"], r"SCHEDULER_HOST 0\.0\.0\.0 .*TASKRUNNER_TLS_CA, or TASKRUNNER_INSECURE=1"),
        (["--roles=worker", "--worker-host=::"], r"WORKER_HOST :: .*TASKRUNNER_TLS_CA, or TASKRUNNER_INSECURE=1"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(arguments: list[str], sentence: str) -> None:
    with running(*arguments) as one:
        assert one.end() == (1, "")
    (error,) = one.errors()
    assert re.search(sentence, error)
    assert "exception" not in one.lines[-1]


def test_an_open_api_is_not_shown_to_other_machines(data_dir: Path) -> None:
    with running(f"--data-dir={data_dir}", "--http-host=0.0.0.0") as one:
        assert one.end() == (1, "")
    (error,) = one.errors()
    assert re.fullmatch(r"HTTP_HOST 0\.0\.0\.0 .*TASKRUNNER_API_TOKENS.*`taskrunner token create`.*TASKRUNNER_INSECURE=1", error)


def test_a_start_that_waits_can_be_stopped(unused_tcp_port: int) -> None:
    with running("--roles=scheduler", f"--db-dsn=postgres://127.0.0.1:{unused_tcp_port}/tasks") as one:
        one.read("waiting for the database")
        one.process.terminate()
        assert one.end() == (0, "")


# A worker's room that does as the test says, in place of the real one.
FAULTY = """
import asyncio, contextlib, sys
from types import SimpleNamespace
from taskrunner import process
from taskrunner.cli import main
from taskrunner.worker import role

@contextlib.asynccontextmanager
async def serve(*_):
    {body}

role.serve = serve
process.MARGIN = 0.2
sys.exit(main())
"""
DIES = """
    async def die(error):
        raise error
    async with asyncio.TaskGroup() as group:
        group.create_task(die(KeyError("lost")))
        group.create_task(die(OSError("cut")))
        try:
            yield SimpleNamespace(address="nowhere")
        finally:
            print("drained", flush=True)
"""
HANGS = """
    yield SimpleNamespace(address="nowhere")
    await asyncio.Event().wait()
"""


def test_a_room_that_dies_ends_the_process_with_a_line_for_each_cause() -> None:
    with running("--roles=worker", program=FAULTY.format(body=DIES)) as one:
        assert one.end() == (1, "drained\n")
    assert sorted(one.errors()) == ["KeyError: 'lost'", "OSError: cut"]
    assert [line["event"] for line in one.lines if "exception" in line] == ["KeyError: 'lost'"], "a traceback for what nobody expected"


def test_closing_is_bounded() -> None:
    with running("--roles=worker", "--grace=0", program=FAULTY.format(body=HANGS)) as one:
        one.read("ready")
        one.process.terminate()
        assert one.end() == (1, "")
    assert len(one.errors()) == 1
    assert "closing took too long" in one.errors()[0]


def test_a_second_signal_ends_it_at_once() -> None:
    with running("--roles=worker", program=FAULTY.format(body=HANGS)) as one:
        one.read("ready")
        one.process.terminate()
        one.read("stopping")
        one.process.terminate()
        assert one.end()[0] == 128 + signal.SIGTERM
