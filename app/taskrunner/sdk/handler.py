"""``@task``: how a function becomes the handler of a task type."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter

from taskrunner.domain.task import LONGEST_TIMEOUT, MOST_ATTEMPTS

MARK = "__taskrunner_handler__"
F = TypeVar("F", bound=Callable[..., Any])


class Isolation(StrEnum):
    """Where a handler runs."""

    LOOP = "loop"  # async def: on the worker's event loop
    THREAD = "thread"  # def: in a thread
    PROCESS = "process"  # either: in a child process, which is killed when its time is up


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A task type and the function that runs it. ``None`` means: as the task or the settings say."""

    task_type: str
    function: Callable[..., Any]
    isolation: Isolation
    timeout: float | None
    max_attempts: int | None
    backoff_base: float | None
    backoff_cap: float | None
    payload: TypeAdapter[Any] | None


def task(  # noqa: PLR0913 — each is an option of its own, all by keyword
    task_type: str,
    *,
    timeout: float | None = None,
    max_attempts: int | None = None,
    backoff_base: float | None = None,
    backoff_cap: float | None = None,
    isolation: str | None = None,
) -> Callable[[F], F]:
    """Make the function below the handler of ``task_type``.

    The function takes ``(ctx: Context, payload)`` and returns any JSON value. ``async def`` runs on the worker's event loop, plain ``def``
    in a thread, and either with ``isolation="process"`` in a child process that is killed when it overruns. A payload annotation that
    pydantic understands validates the payload; one that does not fit fails the task for good.

    ``timeout`` is seconds for one attempt; ``backoff_base`` and ``backoff_cap`` are seconds. What the task itself says comes first, then
    these, then the settings. The function stays callable as it is.
    """
    if not 1 <= len(task_type) <= 200:
        raise ValueError("a task type has 1 to 200 characters")
    if isolation not in (None, Isolation.PROCESS):
        raise ValueError(f'isolation is "process" or left out, not {isolation!r}')
    if timeout is not None and not 0 < timeout <= LONGEST_TIMEOUT:
        raise ValueError(f"timeout must be more than 0 seconds and at most {LONGEST_TIMEOUT}, not {timeout!r}")
    if max_attempts is not None and not 1 <= max_attempts <= MOST_ATTEMPTS:
        raise ValueError(f"max_attempts must be 1 to {MOST_ATTEMPTS}, not {max_attempts!r}")

    def mark(function: F) -> F:
        where = Isolation.PROCESS if isolation else Isolation.LOOP if inspect.iscoroutinefunction(function) else Isolation.THREAD
        handler = Handler(
            task_type=task_type,
            function=function,
            isolation=where,
            timeout=timeout,
            max_attempts=max_attempts,
            backoff_base=backoff_base,
            backoff_cap=backoff_cap,
            payload=_payload_adapter(function),
        )
        setattr(function, MARK, handler)
        return function

    return mark


def handlers_in(module: ModuleType) -> dict[str, Handler]:
    """The handlers that ``module`` defines or imports, by task type. Two for one type are refused."""
    found: dict[str, Handler] = {}
    for value in vars(module).values():
        handler = getattr(value, MARK, None)
        if isinstance(handler, Handler):
            other = found.setdefault(handler.task_type, handler)
            if other.function is not handler.function:
                raise ValueError(f"{module.__name__} has two handlers for the task type {handler.task_type!r}")
    return found


def _payload_adapter(function: Callable[..., Any]) -> TypeAdapter[Any] | None:
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 2:
        raise TypeError(f"{function.__qualname__} must take two arguments: the context and the payload")
    annotation = get_type_hints(function).get(parameters[1], Any)
    return None if annotation in (Any, object, dict, dict[str, Any]) else TypeAdapter(annotation)
