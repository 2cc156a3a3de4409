"""Creating tasks: one statement, one commit, and a hint afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store.desk import Desk, T

from taskrunner.domain.errors import BadTask
from taskrunner.domain.task import Lane, NewTask
from taskrunner.store.notify import CHANNEL, MOST_LANES, Hint

AWKWARD = ("plain", "two words", 'quo"te', "com,ma", "back\\slash", "{brace}", "NULL", "", "ünï→🌍", "new\nline", "'")


@asynccontextmanager
async def heard(dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A second process that listens."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as ear:
        await ear.execute(f"listen {CHANNEL}")
        yield ear


async def next_hint(ear: psycopg.AsyncConnection[Any]) -> Hint:
    async for notification in ear.notifies(timeout=5, stop_after=1):
        return Hint.load(notification.payload)
    raise AssertionError("nothing was said")


async def test_every_field_is_kept(desk: Desk) -> None:
    at = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    (made,) = await desk.store.create(
        [NewTask(task_type="é", payload='{"a": [1, null]}', queue="q", priority=4, run_at=at, max_attempts=9, timeout=1.5, tags=("x", "y"))]
    )
    task = await desk.store.get(made.id)
    assert task is not None
    assert (task.task_type, json.loads(task.payload), task.queue, task.priority, task.run_at) == ("é", {"a": [1, None]}, "q", 4, at)
    assert (task.max_attempts, task.timeout, task.tags, task.status, task.attempt) == (9, 1.5, ["x", "y"], "PENDING", 0)
    assert (task.created_at, made.run_at, task.created_at) == (made.created_at, at, task.updated_at)
    assert (task.finished_at, task.result, task.error, task.cancel_requested_at) == (None, None, None, None)


async def test_defaults_leave_to_the_first_claim_what_nobody_said(desk: Desk) -> None:
    (id_,) = await desk.create()
    task = await desk.store.get(id_)
    assert task is not None
    assert (task.queue, task.priority, task.max_attempts, task.timeout, task.tags) == ("default", 2, None, None, [])
    assert task.run_at == task.created_at
    assert await desk.store.get(uuid4()) is None


async def test_answers_come_in_the_order_of_the_batch(desk: Desk) -> None:
    at = datetime(2031, 1, 1, tzinfo=UTC)
    times = [None if n % 3 == 0 else at + timedelta(seconds=n) for n in range(200)]
    made = await desk.store.create([NewTask(task_type="t", payload=str(n), run_at=time) for n, time in enumerate(times)])
    assert [one.run_at for one in made] == [time or one.created_at for time, one in zip(times, made, strict=True)]
    rows = {row["id"]: row["payload"] for row in await desk.rows("select id, payload from tasks")}
    assert [rows[one.id] for one in made] == list(range(200))


async def test_a_delay_counts_from_the_database_s_now(desk: Desk) -> None:
    (made, plain) = await desk.store.create(
        [NewTask(task_type="t", payload="1", delay=90.5), NewTask(task_type="t", payload="1")],
    )
    assert made.run_at - made.created_at == timedelta(seconds=90.5)
    assert plain.run_at == plain.created_at


async def test_awkward_tags_come_back_as_they_were(desk: Desk) -> None:
    ids = [(await desk.create(tags=(word,)))[0] for word in AWKWARD] + await desk.create(tags=AWKWARD)
    assert [(await desk.row(id_))["tags"] for id_ in ids] == [[word] for word in AWKWARD] + [list(AWKWARD)]


@given(
    rows=st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=3), min_size=1, max_size=5)
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_tags_of_a_batch_come_back_as_they_were(desk: Desk, rows: list[list[str]]) -> None:
    made = await desk.store.create([NewTask(task_type="t", payload="1", tags=tuple(tags)) for tags in rows])
    assert [(await desk.row(one.id))["tags"] for one in made] == rows


BAD: dict[str, dict[str, Any]] = {
    "json": {"payload": "{"},
    "NUL in json": {"payload": '"\\u0000"'},
    "nested too deep": {"payload": "[" * 100_000 + "]" * 100_000},
    "priority": {"priority": 5},
    "type": {"task_type": "x" * 201},
    "NUL in a tag": {"tags": ("a\0b",)},
    "year": {"delay": 1e12},
    "attempts": {"max_attempts": 0},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
async def test_the_first_bad_task_of_a_batch_is_named_and_nothing_is_written(desk: Desk, fields: dict[str, Any]) -> None:
    tasks = [NewTask(task_type="t", payload="1") for _ in range(50)]
    for n in (17, 33):
        tasks[n] = NewTask(**{"task_type": "t", "payload": "1", **fields})
    with pytest.raises(BadTask) as caught:
        await desk.store.create(tasks)
    assert caught.value.index == 17
    assert str(caught.value)
    assert "\n" not in str(caught.value)
    assert await desk.rows("select from tasks") == []


async def test_a_create_is_one_statement_and_says_its_hint_elsewhere(desk: Desk, dsn: str) -> None:
    """NOTIFY inside the inserting transaction would serialise all commits, and fail them when its queue is full."""
    await desk.db.execute("create table log (pid int)")
    await desk.db.execute(
        "create function noted() returns trigger language plpgsql as 'begin insert into log values (pg_backend_pid()); return null; end'"
    )
    await desk.db.execute("create trigger noted after insert on tasks_live for each statement execute function noted()")
    async with heard(dsn) as ear:
        await desk.create()
        await next_hint(ear)  # from now on the teller keeps its connection
        await desk.db.execute("truncate log, tasks_live")
        await desk.create(100)
        tellers = [one.pid async for one in ear.notifies(timeout=5, stop_after=1)]
    (writer,) = await desk.rows("select pid from log")
    assert tellers
    assert writer["pid"] not in tellers
    assert await desk.rows("select count(*) as n from tasks group by xmin::text") == [{"n": 100}]


async def test_a_hint_names_each_lane_and_its_first_task(desk: Desk, dsn: str) -> None:
    async with heard(dsn) as ear:
        made = await desk.store.create(
            [
                NewTask(task_type="t", payload="1", delay=60),
                NewTask(task_type="t", payload="1", delay=30),
                NewTask(task_type="u", payload="1", queue="q", priority=1),
            ]
        )
        hint = await next_hint(ear)
    assert hint.lanes.keys() == {T, Lane("q", "u", 1)}
    assert hint.lanes[T] == (made[1].run_at, 30.0)
    assert hint.lanes[Lane("q", "u", 1)] == (made[2].run_at, 0.0)


async def test_creating_goes_on_when_the_connection_of_hints_breaks(desk: Desk, dsn: str) -> None:
    async with heard(dsn) as ear:
        await desk.create()
        await next_hint(ear)
        (pid,) = await desk.rows("select pid from pg_stat_activity where query like 'select pg_notify%%' and datname = current_database()")
        await desk.db.execute("select pg_terminate_backend(%s)", (pid["pid"],))
        ids = await desk.create(2)
        assert await desk.statuses(ids) == ["PENDING"] * 2
        async with asyncio.timeout(5):
            while True:  # the hint that met the broken connection is lost, a later one is not
                await desk.create(task_type="again")
                if Lane("default", "again", 2) in (await next_hint(ear)).lanes:
                    break


async def test_listeners_of_this_process_hear_at_once(desk: Desk) -> None:
    heard_here: asyncio.Queue[Hint] = asyncio.Queue()
    desk.store.hints.subscribe(heard_here.put_nowait)
    await desk.create()
    async with asyncio.timeout(5):
        assert T in (await heard_here.get()).lanes
    desk.store.hints.unsubscribe(heard_here.put_nowait)


def test_a_hint_is_read_as_it_was_written_and_a_strange_one_is_a_reason_to_look() -> None:
    hint = Hint(cancels={uuid4()})
    hint.add(T, datetime(2031, 1, 1, tzinfo=UTC), 5.0)
    hint.add(T, datetime(2030, 1, 1, tzinfo=UTC), 3.0)
    hint.add(T, datetime(2032, 1, 1, tzinfo=UTC), 9.0)
    assert Hint.load(hint.dump("me")) == hint
    assert hint.lanes == {T: (datetime(2030, 1, 1, tzinfo=UTC), 3.0)}
    for strange in ("", "[]", "1", '{"lanes": [{}]}', '{"lanes": [{"queue": 1}]}', '{"cancels": ["x"]}'):
        assert Hint.load(strange) == Hint(look=True)
    assert Hint.load('{"v": 2, "new": 1}') == Hint()


def test_a_hint_always_fits_into_a_notification() -> None:
    many, long = Hint(), Hint()
    for n in range(MOST_LANES + 1):
        many.add(Lane("default", f"t{n}", 2), datetime(2030, 1, 1, tzinfo=UTC), 0.0)
    for n in range(MOST_LANES):
        long.add(Lane("ü" * 200, f"{n:ö>200}", 2), datetime(2030, 1, 1, tzinfo=UTC), 0.0)
    for hint in (many, long):
        assert len(hint.dump("me").encode()) < 8000
        assert Hint.load(hint.dump("me")) == Hint(look=True)
