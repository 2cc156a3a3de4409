"""Many creates at once: written by COPY as they are made, and no different from those that an insert writes."""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from store.desk import Desk, T
from store.test_create import AWKWARD, BAD, heard, next_hint

from taskrunner.domain.errors import BadTask
from taskrunner.domain.retry import Backoff
from taskrunner.domain.task import NewTask

AT = datetime(2031, 5, 6, 9, 8, 9, 123456, tzinfo=UTC)
KINDS: list[dict[str, Any]] = [
    {},
    {"payload": '{"ü": "\\\\ \\t \\" \\\\N 😀"}', "queue": "a\tb\\", "task_type": "\\N"},
    {"priority": 4, "run_at": AT},
    {"run_at": datetime(1, 1, 1, tzinfo=UTC)},
    {"run_at": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "expires_at": AT.astimezone(tz=None)},
    {"delay": 90.5, "max_attempts": 7, "timeout": 0.25},
    {"tags": tuple(AWKWARD), "metadata": '{"a": [1]}', "callback_url": "https://example.com/ü"},
    {
        "backoff": Backoff(kind="linear", base=1.5, cap=60.0),
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tags": ("x",),
    },
]
OWN = ("id", "run_at", "created_at", "updated_at")


def some(kinds: Sequence[dict[str, Any]] = KINDS) -> list[NewTask]:
    return [NewTask(**{"task_type": "t", "payload": "1", **kind}) for kind in kinds]


def halves(tasks: Sequence[NewTask]) -> Iterator[Sequence[NewTask]]:
    middle = len(tasks) // 2
    yield tasks[:middle]
    yield tasks[middle:]


async def test_a_copied_task_is_what_an_inserted_one_is(desk: Desk) -> None:
    inserted, copied = await desk.store.create(some()), await desk.store.create_parts(halves(some()))
    for one, other, kind in zip(inserted, copied, KINDS, strict=True):
        row, twin = await desk.row(one.id), await desk.row(other.id)
        assert {name: twin[name] for name in twin if name not in OWN} == {name: row[name] for name in row if name not in OWN}
        assert (twin["run_at"], twin["created_at"], twin["updated_at"]) == (other.run_at, other.created_at, other.created_at)
        waits = one.run_at - one.created_at if "run_at" not in kind else one.run_at
        assert waits == (other.run_at - other.created_at if "run_at" not in kind else other.run_at)


async def test_ids_are_those_of_the_database_s_clock_in_the_order_of_the_tasks(desk: Desk) -> None:
    (before,) = await desk.rows("select clock_timestamp() as at")
    made = await desk.store.create_parts(halves(some([{}] * 5_000)))
    (after,) = await desk.rows("select clock_timestamp() as at")
    assert all(one.id < other.id for one, other in pairwise(made))
    assert {(one.id.version, one.id.variant) for one in made} == {(7, "specified in RFC 4122")}
    spread = timedelta(milliseconds=5_000 / 4096 + 1)
    for one in (made[0], made[-1]):
        assert before["at"] - timedelta(milliseconds=1) <= datetime.fromtimestamp((one.id.int >> 80) / 1000, UTC) <= after["at"] + spread
        assert before["at"] <= one.created_at <= after["at"]
    assert len({one.id.int & (1 << 62) - 1 for one in made}) == len(made)


async def test_they_are_claimed_in_the_order_in_which_they_came(desk: Desk) -> None:
    made = await desk.store.create_parts(halves(some([{"payload": json.dumps(n)} for n in range(300)])))
    held = await desk.claim(await desk.worker(), 300, lane=T)
    assert held.ids == [one.id for one in made]


@pytest.mark.parametrize("fields", [fields for name, fields in BAD.items() if name != "year"], ids=[name for name in BAD if name != "year"])
async def test_the_first_one_that_the_database_refuses_is_named_and_nothing_is_written(desk: Desk, fields: dict[str, Any]) -> None:
    tasks = some([{}] * 50)
    for n in (17, 33):
        tasks[n] = NewTask(**{"task_type": "t", "payload": "1", **fields})
    with pytest.raises(BadTask) as caught:
        await desk.store.create_parts(halves(tasks))
    assert caught.value.index == 17
    assert await desk.rows("select from tasks") == []


async def test_a_hint_counts_the_time_that_the_writing_took(desk: Desk, dsn: str) -> None:
    def slow() -> Iterator[Sequence[NewTask]]:
        for _ in range(3):
            time.sleep(0.1)  # as long as the reading of a large array takes
            yield some([{"delay": 30.0}])

    async with heard(dsn) as ear:
        await desk.store.create_parts(slow())
        (run_at, delay) = (await next_hint(ear)).lanes[T]
    assert 29.0 < delay <= 29.7
    assert run_at == min(row["run_at"] for row in await desk.rows("select run_at from tasks"))


async def test_nothing_is_written_when_the_making_fails(desk: Desk) -> None:
    def broken() -> Iterator[Sequence[NewTask]]:
        for _ in range(20):
            yield some([{}] * 250)
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        await desk.store.create_parts(broken())
    assert await desk.rows("select from tasks") == []
    await desk.store.create_parts(iter([some([{}])]))
    assert await desk.rows("select count(*) as n from tasks") == [{"n": 1}]
    assert sum(desk.store.meter.created.values()) == 1
