"""Child processes: one task at a time each, kept warm, killed when their task overruns."""

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from taskrunner.kit.log import Form
from taskrunner.wire.pb.taskrunner.v1 import Outcome
from taskrunner.worker import frames
from taskrunner.worker.attempts import Running, Waiting, Why
from taskrunner.worker.calls import Ending

Report = Callable[[bytes, bytes, float, str], None]
IDLE = 60.0  # seconds after which an unused child is ended
MERCY = 1.0  # seconds between SIGTERM and SIGKILL
LOOK = 1_000  # milliseconds between two looks at a silent child: something that it started may hold its socket open after its death


class Setup(NamedTuple):
    """What a child is told first: the user's modules, how it logs, and whether it sends traces."""

    modules: Sequence[str]
    log_level: str = "info"
    log_format: Form = None
    traces: bool = False


class Child:
    """One process and our end of its socket. It leads a process group of its own: a Ctrl-C at the terminal is for the worker alone."""

    def __init__(self, setup: Setup) -> None:
        self._sock, theirs = socket.socketpair()
        self._reaping = threading.Lock()  # a signal must not meet a process id that is free again
        self.idle_since = 0.0
        with theirs:
            command = [sys.executable, "-m", "taskrunner.worker.child", str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 — our own program
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            frames.send(self._sock, {"path": [*map(str, sys.path)], **setup._asdict()})  # some put a Path there
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """True while the process has not ended."""
        with self._reaping:
            return self._process.poll() is None

    def run(self, entry: Waiting, report: Report) -> Ending:
        """Let the child run one attempt, and ``report`` its progress. Raises EOFError or OSError when it dies. Blocks."""
        kind, id_, epoch, attempt, max_attempts, timeout, run_at, payload, _ = entry
        job = {"task_type": kind.task_type, "queue": kind.queue, "id": id_.hex(), "run_at": run_at, "session": kind.session}
        job["traceparent"] = kind.traceparents.get(id_, b"").decode("ascii", "replace")
        frames.send(self._sock, {**job, "attempt": attempt, "max_attempts": max_attempts, "timeout": timeout}, payload)
        said, result = self._receive()
        while "outcome" not in said:
            report(id_, epoch, said["progress"], said["message"])
            said, result = self._receive()
        return Ending(Outcome(said["outcome"]), result, said["error"], said["traceback"], said["delay"])

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while not poll.poll(LOOK):
            if not self.alive:
                raise EOFError("the child is gone")
        return frames.receive(self._sock)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child and to what it started, unless it has ended."""
        with self._reaping:
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)

    def end(self) -> int:
        """Kill the child, if it lives, and what it has started. Returns its exit code, negative for a signal. Blocks for a moment."""
        self._sock.close()
        try:
            self._process.wait(0.2)  # one that died by itself has a better reason to tell than our kill
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
        code = self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # its group may have survived it, and keeps its number while it does
        return code


class Children:
    """The pool. ``run`` is called from threads, everything else on the loop."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._loop = asyncio.get_running_loop()
        self._idle: list[Child] = []
        self._busy: dict[Running, Child] = {}
        self._pruning: asyncio.TimerHandle | None = None

    def run(self, one: Running, report: Report) -> Ending:
        """Run the attempt in a child, which is killed if the attempt does not end as it should. Blocks."""
        try:
            child = self._take()
        except OSError as error:
            return Ending(Outcome.RETRY, error=f"a child process could not be started: {error}")
        self._busy[one] = child
        try:
            ending = child.run(one.entry, report) if one.asked is None else None
        except (EOFError, OSError):
            return Ending(Outcome.RETRY, error=_death(child.end()))
        except BaseException:  # it says what nobody understands
            child.end()
            raise
        finally:
            del self._busy[one]
        if one.asked is None:
            child.idle_since = time.monotonic()
            self._idle.append(child)
        else:
            child.end()  # a signal may be on its way to it
        return ending or Ending(Outcome.RETRY, error="stopped before it began")

    def kill(self, one: Running, why: Why) -> None:
        """End the child that runs the attempt: at once when its time is up, else after a moment in which it may tidy up."""
        child = self._busy.get(one)  # None: ``run`` looks at one.asked before it begins
        if child is None:
            return
        if why is Why.TIMEOUT:
            child.signal(signal.SIGKILL)
        else:
            child.signal(signal.SIGTERM)
            self._loop.call_later(MERCY, self._finish, one, child)

    def prune_later(self) -> None:
        """End idle children in time. No timer runs while there are none."""
        if self._pruning is None:
            self._pruning = self._loop.call_later(IDLE, self._prune)

    def close(self) -> None:
        """Kill them all."""
        if self._pruning is not None:
            self._pruning.cancel()
        for child in list(self._busy.values()):
            child.signal(signal.SIGKILL)  # the thread that waits for it sees it end
        while self._idle:
            self._end_idle(self._idle.pop())

    def _take(self) -> Child:
        while True:
            try:
                child = self._idle.pop()
            except IndexError:
                return Child(self._setup)
            if child.alive:
                return child
            child.end()

    def _finish(self, one: Running, child: Child) -> None:
        if self._busy.get(one) is child:
            child.signal(signal.SIGKILL)

    def _prune(self) -> None:
        self._pruning = None
        before = time.monotonic() - IDLE
        while self._idle and self._idle[0].idle_since <= before:
            self._end_idle(self._idle.pop(0))
        if self._idle or self._busy:
            self.prune_later()

    @staticmethod
    def _end_idle(child: Child) -> None:
        child.signal(signal.SIGKILL)
        child.end()


def _death(code: int) -> str:
    if code >= 0:
        return f"the child process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"the child process was killed by {name}"
