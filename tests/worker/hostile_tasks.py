"""Handlers that return and raise what nobody wants (F37), each in every isolation."""

import math
from collections.abc import Callable
from typing import Any

from taskrunner import Context, task


class Rude(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Deceitful(str):
    """A text whose length, hash and equality lie."""

    __slots__ = ()

    def __len__(self) -> int:
        raise MemoryError


RESULTS: dict[str, Callable[[], Any]] = {
    "NUL": lambda: "a\0b",
    "surrogate": lambda: {"\ud800": "\udfff"},
    "NaN": lambda: [math.nan, math.inf, -math.inf],
    "10 MB": lambda: "x" * 10_000_000,
    "an object": object,
    "a set of sets": lambda: {frozenset({1})},
    "5,000 digits": lambda: 10**4_000,
    "a class": lambda: Rude,
    "an exception": Rude,
    "lies": lambda: Deceitful("x"),
}
ERRORS: dict[str, Callable[[], BaseException]] = {
    "NUL": lambda: ValueError("a\0b" * 10),
    "surrogate": lambda: ValueError("\ud800\udfff"),
    "10 MB": lambda: ValueError("x" * 10_000_000),
    "rude": Rude,
    "a cause that is rude": lambda: _caused(ValueError("x"), Rude()),
    "SystemExit": lambda: SystemExit(Rude()),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "a group": lambda: BaseExceptionGroup("many\0", [Rude(), ValueError("\ud800")]),
    "deep recursion": lambda: RecursionError("x" * 100_000),
}


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def misbehave(payload: dict[str, str]) -> Any:
    if "result" in payload:
        return RESULTS[payload["result"]]()
    error = ERRORS[payload["error"]]()
    raise error


@task("hostile.loop", max_attempts=1)
async def on_the_loop(ctx: Context, payload: dict[str, str]) -> Any:
    return misbehave(payload)


@task("hostile.thread", max_attempts=1)
def in_a_thread(ctx: Context, payload: dict[str, str]) -> Any:
    return misbehave(payload)


@task("hostile.process", max_attempts=1, isolation="process")
def in_a_process(ctx: Context, payload: dict[str, str]) -> Any:
    return misbehave(payload)
