"""What cannot be sent as it is given is refused, and never sent as something else."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from taskrunner import Client
from taskrunner.client import Unsendable
from taskrunner.client.transport import dump

INF, NAN = float("inf"), float("nan")


class Price(BaseModel):
    amount: float


@dataclass
class Size:
    height: float


class Bound(Enum):
    NONE = INF


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [NAN, [INF], {"a": [{"b": -INF}]}, (NAN,), Price(amount=NAN), [Size(height=INF)], Bound.NONE, {"n": None, "x": NAN}], ids=repr
)
def test_nan_and_infinity_are_refused_wherever_they_are(value: Any) -> None:
    with pytest.raises(Unsendable, match="NaN and Infinity cannot be sent"):
        dump(value)


@pytest.mark.parametrize(
    ("value", "why"),
    [(2**64, "64-bit"), ("\ud800", "UTF-8"), (deep(3_000), "[Rr]ecursion"), (object(), "object"), ({1: 2}, "str")],
    ids=["integer", "surrogate", "deep", "object", "key"],
)
def test_what_is_not_json_is_one_error(value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=f"^this cannot be sent as JSON: .*{why}") as refused:
        dump(value)
    assert refused.type is Unsendable


def test_null_and_the_word_are_sent() -> None:
    values = [None, "null", 1.5, Price(amount=2), Size(3.5), timedelta(minutes=1), orjson.Fragment("[null]"), deep(200)]
    expected = [None, "null", 1.5, {"amount": 2.0}, {"height": 3.5}, 60.0, [None], deep(200)]
    assert json.loads(dump(values)) == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.create("x", {"v": NAN}),
        lambda client: client.create("x", delay=INF),
        lambda client: client.create("x", timeout=NAN),
        lambda client: client.create("x", metadata={"v": INF}),
        lambda client: client.create_batch([{"task_type": "x"}, {"task_type": "x", "delay": NAN}]),
        lambda client: client.stats(window=NAN),
    ],
)
async def test_every_call_refuses_it_before_it_is_sent(call: Callable[[Client], Any], unused_tcp_port: int) -> None:
    async with Client(f"http://127.0.0.1:{unused_tcp_port}", retries=0) as client:
        with pytest.raises(Unsendable):
            await call(client)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.create("x", idempotency_key="a\nb"),
        lambda client: client.get(""),
        lambda client: client.cancel(".."),
        lambda client: client.get("\udcff"),
        lambda client: client.drain(""),
        lambda client: client.bulk_state(""),
        lambda client: client.pause("queue", ""),
        lambda client: client.resume("type", "\udcff"),
        lambda client: client.count(queue="\udcff"),
    ],
)
async def test_what_would_make_another_call_is_refused(call: Callable[[Client], Any], unused_tcp_port: int) -> None:
    async with Client(f"http://127.0.0.1:{unused_tcp_port}", retries=0) as client:
        with pytest.raises(Unsendable):
            await call(client)


def test_a_token_of_two_lines_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="TASKRUNNER_API_TOKEN") as refused:
        Client(token="trk_secret\n")
    assert "secret" not in str(refused.value)
