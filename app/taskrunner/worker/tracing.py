"""A span for each attempt: below the request that made the task, however long ago, and above what the handler does."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import wraps
from typing import Any

from taskrunner.kit.trace import Tracer
from taskrunner.sdk import Context, Handler, Snooze


def traced(handlers: Mapping[str, Handler], tracer: Tracer) -> dict[str, Handler]:
    """``handlers`` with a span round each call. Nothing else knows of it: without traces nothing is in the way of an attempt."""
    return {task_type: replace(handler, function=_traced(handler.function, tracer)) for task_type, handler in handlers.items()}


def _traced(function: Callable[..., Any], tracer: Tracer) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def run(ctx: Context, payload: Any) -> Any:
            with _attempt(ctx, tracer):
                return await function(ctx, payload)
    else:

        @wraps(function)
        def run(ctx: Context, payload: Any) -> Any:
            with _attempt(ctx, tracer):
                return function(ctx, payload)

    return run


def _attempt(ctx: Context, tracer: Tracer) -> AbstractContextManager[object]:
    words: dict[str, str | int] = {
        "messaging.system": "taskrunner",
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.destination.name": ctx.queue,
        "messaging.message.id": ctx.task_id,
        "taskrunner.task_type": ctx.task_type,
        "taskrunner.attempt": ctx.attempt,
        "taskrunner.max_attempts": ctx.max_attempts,
        "taskrunner.session": ctx.session,
    }
    return tracer.span(f"run {ctx.task_type}", "consumer", words, parent=ctx.traceparent, calm=(Snooze,))
