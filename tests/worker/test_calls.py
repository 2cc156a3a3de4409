"""Payloads, results and errors that are not what one would wish."""

import dataclasses
import math
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, field_validator
from worker.bench import handler_of, open_bench

from taskrunner.sdk import Context, task
from taskrunner.wire.pb.taskrunner.v1 import Outcome
from taskrunner.worker.calls import MOST_ERROR, MOST_RESULT, MOST_TRACEBACK, failed, read_payload, succeeded


class Invoice(BaseModel):
    number: int
    lines: list[str]

    @field_validator("number")
    @classmethod
    def _positive(cls, number: int) -> int:
        if number == 13:
            raise StopIteration
        assert number > 0, "must be positive"
        return number


@dataclasses.dataclass
class Point:
    x: int


class Rude:
    def __init__(self) -> None:
        self.model_dump = lambda **_: 1 / 0


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@task("invoice")
async def invoice(ctx: Context, payload: Invoice) -> Any:
    return payload


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


CANNOT = "the handler succeeded, but its result cannot be stored: "


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({1, 2}, "set"),
        (object(), "object"),
        (Rude(), "Rude"),
        ("\ud800", "surrogates"),
        ({"\udfff": 1}, "surrogates"),
        ("a\0b", "U+0000"),
        ({"a\0": 1}, "U+0000"),
        ("\\\0", "U+0000"),
        (b"bytes", "bytes"),
        ({1: 2}, "str"),
        (2**70, "64-bit"),
        (nested(20_000), "ecursion"),
        ("x" * MOST_RESULT, "bytes of JSON"),
        (open, "function"),
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, list) else "deep",
)
def test_results_that_cannot_be_stored(value: Any, part: str) -> None:
    ending = succeeded(value)
    assert ending.outcome is Outcome.FAILED
    assert ending.error.startswith(CANNOT)
    assert part in ending.error
    assert len(ending.error) <= MOST_ERROR


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, b""),
        (math.nan, b"null"),
        (Invoice(number=1, lines=["a"]), b'{"number":1,"lines":["a"]}'),
        ({"deep": [Point(3)]}, b'{"deep":[{"x":3}]}'),
        ("a backslash and u0000: \\u0000", rb'"a backslash and u0000: \\u0000"'),
        ("x" * (MOST_RESULT - 2), b'"' + b"x" * (MOST_RESULT - 2) + b'"'),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_results_that_can(value: Any, stored: bytes) -> None:
    assert succeeded(value)[:2] == (Outcome.COMPLETED, stored)


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        (b'{"number": "x", "lines": []}', "number: Input should be a valid integer"),
        (b'{"number": 0, "lines": []}', "must be positive"),
        (b'{"number": 1}', "lines: Field required"),
        (b"[]", "payload: Input should be an object"),
        (b'{"number": 1, "lines": [1,2,3,4,5,6,7]}', "(and 2 more)"),
        (b"{", "Invalid JSON"),
        (b"\xff", "payload"),
    ],
)
async def test_a_payload_that_does_not_fit_fails_for_good(payload: bytes, part: str) -> None:
    async with open_bench(invoice) as bench:
        done = await bench.run("invoice", payload)
        assert (done.outcome, done.traceback) == (Outcome.FAILED, "")
        assert done.error.startswith("the payload does not fit: ")
        assert part in done.error
        assert (await bench.run("invoice", {"number": 2, "lines": ["x"]})).result == {"number": 2, "lines": ["x"]}


async def test_a_validator_cannot_pass_for_a_handler_that_returned() -> None:
    async with open_bench(invoice) as bench:
        done = await bench.run("invoice", {"number": 13, "lines": []})
        assert done.outcome in (Outcome.RETRY, Outcome.FAILED)


def test_a_payload_that_is_no_json() -> None:
    @task("any")
    def anything(ctx: Context, payload: Any) -> None: ...

    with pytest.raises(Exception, match="cannot be read as JSON"):
        read_payload(handler_of(anything), b"{nope")


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 — whatever it is
        return caught


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("a\0b \ud800 c"), "ValueError: a\ufffdb \ufffd c"),
        (ValueError(), "ValueError"),
        (Unspeakable(), "Unspeakable: (its message cannot be shown)"),
        (ValueError("x" * 10_000_000), "ValueError: xxx"),
        (ExceptionGroup("several", [ValueError("\0")] * 100), "ExceptionGroup: several (100 sub-exceptions)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_can_always_be_stored(error: BaseException, said: str) -> None:
    ending = failed(raised(error))
    assert ending.outcome is Outcome.RETRY
    assert ending.error.startswith(said)
    assert len(ending.error) <= MOST_ERROR
    assert len(ending.traceback.encode()) <= MOST_TRACEBACK
    assert "\0" not in ending.error + ending.traceback
    orjson.dumps([ending.error, ending.traceback])


def test_a_long_traceback_keeps_its_end() -> None:
    def down(n: int) -> None:
        if not n:
            raise LookupError("the bottom")
        down(n - 1)

    try:
        down(400)
    except LookupError as error:
        error.add_note("é" * MOST_TRACEBACK)
        trace = failed(error).traceback
    assert len(trace.encode()) <= MOST_TRACEBACK
    assert trace.endswith("é\n")
