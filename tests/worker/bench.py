"""The executor on a bench: real handlers, a real outbox, and what would have gone to a scheduler."""

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson

from taskrunner.sdk import Handler
from taskrunner.sdk.handler import MARK
from taskrunner.settings import Settings
from taskrunner.wire.columns import doubles, ints, split
from taskrunner.wire.pb.taskrunner.v1 import Outcome, SchedulerMessage, Tasks, Welcome, WorkerMessage
from taskrunner.worker.blocking import Blocking
from taskrunner.worker.children import Children, Setup
from taskrunner.worker.session import Session


class Ended(NamedTuple):
    """One outcome as a scheduler would read it."""

    outcome: Outcome
    result: Any
    error: str
    traceback: str
    delay: float
    run_ms: int


def handler_of(function: Callable[..., Any]) -> Handler:
    handler: Handler = getattr(function, MARK)
    return handler


def tasks(task_type: str, payloads: Sequence[Any], *, attempt: int = 1, timeout: float = 30, ids: Sequence[bytes] = ()) -> Tasks:
    """A message of new tasks. Their epoch is 1."""
    ids, n = ids or [os.urandom(16) for _ in payloads], len(payloads)
    return Tasks(
        task_type=task_type,
        queue="default",
        ids=b"".join(ids),
        epochs=struct.pack(">q", 1) * n,
        attempts=struct.pack(">i", attempt) * n,
        max_attempts=struct.pack(">i", 5) * n,
        timeouts=struct.pack(">f", timeout) * n,
        run_ats=struct.pack(">q", 0) * n,
        payloads=[payload if isinstance(payload, bytes) else orjson.dumps(payload) for payload in payloads],
    )


def key(id_: bytes) -> bytes:
    return id_ + struct.pack(">q", 1)


def read_outcomes(message: WorkerMessage) -> dict[bytes, Ended]:
    said = message.outcomes
    assert said is not None
    ids = split(said.ids, 16)
    assert len(said.epochs) == 8 * len(ids)

    def column(values: Sequence[Any], absent: Any) -> Sequence[Any]:
        assert len(values) in (0, len(ids))
        return values or [absent] * len(ids)

    rows = zip(
        ids,
        column(said.results, b""),
        column(said.errors, ""),
        column(said.tracebacks, ""),
        column(doubles(said.delays), 0.0),
        column(ints(said.run_ms), 0),
        strict=True,
    )
    return {
        id_: Ended(said.outcome, orjson.loads(result) if result else None, error, trace, delay, ms)
        for id_, result, error, trace, delay, ms in rows
    }


class Bench:
    """Feeds tasks and collects outcomes, each message through its bytes and back."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.executor = session.executor
        self.ended: dict[bytes, Ended] = {}
        self.messages: list[WorkerMessage] = []

    def give(self, task_type: str, *payloads: Any, **more: Any) -> list[bytes]:
        """Send tasks; returns their ids."""
        message = tasks(task_type, payloads, **more)
        self.session.receive(SchedulerMessage.parse(bytes(SchedulerMessage(tasks=message))))
        return split(message.ids, 16)

    def collect(self) -> None:
        for message in self.session.outgoing():
            again = WorkerMessage.parse(bytes(message))
            self.messages.append(again)
            if again.outcomes is not None:
                self.ended |= read_outcomes(again)

    async def until(self, true: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.002)
                self.collect()

    async def outcomes(self, ids: Sequence[bytes]) -> list[Ended]:
        """The outcomes of ``ids``, once all are there."""
        await self.until(lambda: all(id_ in self.ended for id_ in ids))
        return [self.ended[id_] for id_ in ids]

    async def run(self, task_type: str, payload: Any = None, **more: Any) -> Ended:
        return (await self.outcomes(self.give(task_type, payload, **more)))[0]


@asynccontextmanager
async def open_bench(
    *functions: Callable[..., Any], modules: Sequence[str] = (), setup: Setup | None = None, trusted: bool = True, **settings: Any
) -> AsyncIterator[Bench]:
    """A session with these handlers, welcomed by a scheduler for a long lease."""
    known = Settings(**settings)
    children = Children(setup or Setup(modules))
    blocking = Blocking(known.slots, children)
    try:
        async with asyncio.TaskGroup() as group:
            handlers = {handler_of(function).task_type: handler_of(function) for function in functions}
            session = Session(settings=known, handlers=handlers, group=group, blocking=blocking)
            session.hello(name="bench", address="")
            if trusted:
                session.welcomed(Welcome(protocol=1, beat=100, lease=1000), time.monotonic())
            yield Bench(session)
            session.executor.clear()
            session.flow.close()
    finally:
        children.close()
        blocking.close()
