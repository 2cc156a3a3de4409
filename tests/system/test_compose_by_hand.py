"""compose.yaml without an engine: its commands and environments, with other addresses, as somebody who may do nothing."""

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.cluster import free_ports
from faults.database import Server
from faults.processes import TESTS, Process, plain_environment
from faults.waiting import until
from system.calls import call

TOP = Path(__file__).parent.parent.parent
WORKERS = 3


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((TOP / "compose.yaml").read_text())
    return dict(document["services"])


@pytest.fixture(scope="module")
def powerless() -> list[str]:
    """A command that runs another one as the containers are run: without capabilities, and where we are root as nobody if that one may
    read this folder and the interpreter. Nothing, where we have no power to lose.
    """
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        return []
    bare = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    entry = pwd.getpwnam("nobody")
    for command in ([*bare, f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"], bare):
        check = [*command, sys.executable, "-c", f"import sys, taskrunner.cli; sys.exit(sys.version_info[:3] != {sys.version_info[:3]})"]
        if subprocess.run(check, cwd="/", check=False, capture_output=True).returncode == 0:
            return command
    return []


class Translated:
    """The addresses of the network of the containers, as they are here."""

    def __init__(self, services: dict[str, Any], database: int) -> None:
        self._services = services
        self.http, self.scheduler, *self.workers = free_ports(2 + WORKERS)
        self._database = database

    def environment(self, name: str, number: int = 0) -> dict[str, str]:
        ports = {"HTTP_PORT": self.http, "SCHEDULER_PORT": self.scheduler, "WORKER_PORT": self.workers[number]}
        found = {}
        for key, value in self._services[name]["environment"].items():
            text = re.sub(r"\$\{\w+:-(\w*)\}", r"\1", value)
            text = text.replace("@postgres:5432", f"@127.0.0.1:{self._database}").replace("scheduler:10000", f"127.0.0.1:{self.scheduler}")
            found[key] = str(ports.get(key, text))
        assert not re.search(r"postgres:5432|\$\{", str(found))
        return found

    def healthy(self, name: str, number: int, under: list[str]) -> bool:
        """What the service's health command says."""
        kind, program, *arguments = self._services[name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "taskrunner")
        asked = subprocess.run(
            [*under, sys.executable, "-m", program, *arguments], env=plain_environment() | self.environment(name, number), cwd=TESTS,
            check=False, capture_output=True,
        )  # fmt: skip
        return asked.returncode == 0


async def test_compose_up(services: dict[str, Any], powerless: list[str], plain: Server, launch: Callable[..., Process]) -> None:
    await plain.start()
    here = Translated(services, plain.port)
    assert not here.healthy("scheduler", 0, powerless), "nobody is there yet"
    for name in ("scheduler", "api", "worker"):  # as depends_on has it
        assert "command" not in services[name]
        for number in range(WORKERS if name == "worker" else 1):
            extra = {"TASKRUNNER_WEBHOOK_ALLOW": "127.0.0.0/8"} if name == "worker" else {}
            await launch(**here.environment(name, number), **extra, under=powerless).said("ready")
            await until(partial(here.healthy, name, number, powerless), within=30, what=f"a healthy {name}")
    api = f"http://127.0.0.1:{here.http}/api"
    assert len(await plain.ask("select 1 from sessions where status = 'LIVE'")) == WORKERS
    status, task = call("POST", f"{api}/tasks", {"task_type": "webhook", "payload": {"method": "GET", "url": f"{api}/healthz"}})
    assert status == 201
    done = call("GET", f"{api}/tasks/{task['id']}?wait=20")[1]
    assert (done["status"], done["error"]) == ("COMPLETED", None)
