"""What runs in a child process, ``python -m taskrunner.worker.child FD``: one task at a time, until the worker is gone or kills us."""

import asyncio
import inspect
import os
import queue
import signal
import socket
import sys
import threading
from contextvars import Context as Variables
from typing import Any

from taskrunner.kit.log import ABOUT, configure
from taskrunner.kit.trace import Tracer, start_exporting
from taskrunner.sdk import Context, Handler
from taskrunner.worker import frames
from taskrunner.worker.calls import MOST_MESSAGE, Ending, call_plain, clean, failed, read_payload, succeeded
from taskrunner.worker.loading import import_handlers
from taskrunner.worker.tracing import traced

EXPORT = 500  # milliseconds after which a span is sent: an idle child is killed without notice
Jobs = queue.SimpleQueue[tuple[dict[str, Any], bytes]]


def main() -> None:
    """Serve the worker at the other end of the inherited socket."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    setup, _ = frames.receive(sock)
    sys.path[:] = setup["path"]
    configure(setup["log_level"], setup["log_format"])
    handlers = import_handlers(setup["modules"])
    if setup["traces"]:
        start_exporting(delay_ms=EXPORT)
        handlers = traced(handlers, Tracer())
    jobs: Jobs = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sock, jobs), name="reader", daemon=True).start()
    with asyncio.Runner() as runner:
        while True:
            job, payload = jobs.get()
            voice = Voice(sock)
            ending = _run(runner, handlers[job["task_type"]], job, payload, voice)
            voice.close()
            header = {"outcome": ending.outcome, "error": ending.error, "traceback": ending.traceback, "delay": ending.delay}
            frames.send(sock, header, ending.result)


class Voice:
    """Tells the worker how far an attempt is, from any thread, until the attempt is over."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._turn = threading.Lock()
        self._open = True

    def report(self, _id: bytes, _epoch: bytes, fraction: float, message: str) -> None:
        """As the worker's own."""
        with self._turn:
            if self._open:
                frames.send(self._sock, {"progress": fraction, "message": clean(message, MOST_MESSAGE)})

    def close(self) -> None:
        """A thread that the handler left behind is not heard any more."""
        with self._turn:
            self._open = False


def _read(sock: socket.socket, jobs: Jobs) -> None:
    """Read in a thread of its own, so that a busy child sees the end of its worker too."""
    try:
        while True:
            jobs.put(frames.receive(sock))
    except (EOFError, OSError):
        os.killpg(0, signal.SIGKILL)  # our group: us, and what the handler has started


def _run(runner: asyncio.Runner, handler: Handler, job: dict[str, Any], payload: bytes, voice: Voice) -> Ending:
    ctx = Context(
        id=bytes.fromhex(job["id"]),
        task_type=job["task_type"],
        queue=job["queue"],
        attempt=job["attempt"],
        max_attempts=job["max_attempts"],
        timeout=job["timeout"],
        run_at=job["run_at"],
        report=voice.report,
        session=job["session"],
        traceparent=job["traceparent"].encode(),
    )
    if not inspect.iscoroutinefunction(handler.function):
        return Variables().run(call_plain, handler, ctx, payload)
    variables = Variables()
    variables.run(ABOUT.set, ctx)
    try:
        return succeeded(runner.run(handler.function(ctx, read_payload(handler, payload)), context=variables))
    except BaseException as error:  # noqa: BLE001 — sys.exit() in a handler ends the attempt, not the child
        return failed(error)


if __name__ == "__main__":
    main()
