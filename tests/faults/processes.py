"""Real processes that cannot outlive the test run."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from faults.waiting import until

import taskrunner
from taskrunner.settings import Settings, env_name

MAIN = (sys.executable, "-c", "import sys; from taskrunner.cli import main; sys.exit(main())")
TESTS = Path(__file__).parent.parent
APP = Path(taskrunner.__file__).parent.parent  # processes run the code that the tests import


def end_with_us() -> None:
    """Ask the kernel to kill this process when the test run dies (``PR_SET_PDEATHSIG`` is 1). Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def plain_environment() -> dict[str, str]:
    """Ours without any of taskrunner's settings."""
    names = {env_name(name) for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in names} | {"PYTHONPATH": f"{APP}{os.pathsep}{TESTS}"}


class Process:
    """``taskrunner`` in a process group of its own, with its log in a file. Killed with its group by ``kill``, whatever state it is in.

    ``under`` is a command that becomes it, such as ``setpriv``.
    """

    def __init__(
        self, log: Path, arguments: Sequence[str], environment: Mapping[str, str], *, under: Sequence[str] = (), dies_with_us: bool = True
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [*under, *MAIN, "--log-format=json", *arguments],
                env={**plain_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=log.parent,
                preexec_fn=end_with_us if dies_with_us else None,  # noqa: PLW1509 — one system call, in a child of a process without threads
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def alive(self) -> bool:
        return self.popen.poll() is None

    def events(self, beginning: str = "") -> list[dict[str, Any]]:
        """Log lines whose event begins so. The last one may be half written."""
        lines = self.log.read_text(errors="replace").split("\n")[:-1]
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"].startswith(beginning)]

    async def said(self, beginning: str, *, within: float = 30) -> dict[str, Any]:
        """The first log line whose event begins so."""

        def look() -> list[dict[str, Any]]:
            found = self.events(beginning)
            assert found or self.alive, f"it ended with {self.popen.returncode} instead of saying {beginning!r}:\n{self.log.read_text()}"
            return found

        first: dict[str, Any] = (await until(look, within=within, what=f"{beginning!r} in {self.log}"))[0]
        return first

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    async def ended(self, *, within: float) -> int:
        """Its exit code."""
        await until(lambda: not self.alive, within=within, what=f"the end of {self.log.stem}")
        return self.popen.returncode

    def kill(self) -> None:
        """kill -9 to the whole group. A process that has been waited for may still have left children."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.popen.wait(10)
