"""A handler by itself: no service, no database, and what becomes of its task all the same."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID, uuid4

import orjson

from taskrunner.client.transport import dump
from taskrunner.sdk import Context, Handler
from taskrunner.sdk.context import POSTGRES_EPOCH
from taskrunner.sdk.handler import MARK
from taskrunner.worker.calls import failed, read_payload, succeeded


class Told(TypedDict, total=False):
    """What the handler is told; what is left out is as it mostly is."""

    task_id: str
    queue: str
    attempt: int
    max_attempts: int
    timeout: float
    run_at: datetime
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Ran:
    """How an attempt ended: ``outcome`` is COMPLETED, RETRY, FAILED or SNOOZED.

    ``result`` is as JSON brings it back; ``delay`` is in seconds, None for the usual backoff; ``progress`` is what the handler said of
    itself, as (fraction, message). Of a RETRY of the last attempt the service makes a FAILED.
    """

    outcome: str
    result: Any
    error: str | None
    traceback: str | None
    delay: float | None
    progress: tuple[tuple[float, str], ...]


async def run_inline(function: Callable[..., Any], payload: Any = None, **told: Unpack[Told]) -> Ran:
    """Run the handler ``function`` here and now, as a worker would: the payload goes through JSON and the handler's own type.

    Plain functions run in the caller's thread. Nothing is timed out, and nothing that the handler raises comes out of here.
    """
    handler = getattr(function, MARK, None)
    if not isinstance(handler, Handler):
        raise TypeError(f"{getattr(function, '__qualname__', function)} is no handler: put @task above it")
    progress: list[tuple[float, str]] = []
    context = _context(handler, told, progress)
    try:
        value = handler.function(context, read_payload(handler, dump({} if payload is None else payload)))
        ending = succeeded(await value if inspect.isawaitable(value) else value)
    except Exception as error:  # noqa: BLE001 — whatever it is, it is how the attempt ended
        ending = failed(error)
    return Ran(
        outcome=str(ending.outcome.name),
        result=orjson.loads(ending.result) if ending.result else None,
        error=ending.error or None,
        traceback=ending.traceback or None,
        delay=ending.delay,
        progress=tuple(progress),
    )


def _context(handler: Handler, told: Told, progress: list[tuple[float, str]]) -> Context:
    run_at = told.get("run_at") or datetime.now(UTC)  # noqa: TID251 — there is no database whose clock could be asked
    return Context(
        id=UUID(told["task_id"]).bytes if "task_id" in told else uuid4().bytes,
        task_type=handler.task_type,
        queue=told.get("queue", "default"),
        attempt=told.get("attempt", 1),
        max_attempts=told.get("max_attempts", handler.max_attempts or 5),
        timeout=told.get("timeout", handler.timeout or 300.0),
        run_at=(run_at - POSTGRES_EPOCH) // timedelta(microseconds=1),
        cancelled=lambda: told.get("cancelled", False),
        report=lambda _id, _epoch, fraction, message: progress.append((fraction, message)),
    )
