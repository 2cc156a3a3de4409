"""taskrunner_enqueue and taskrunner_cancel, as somebody with psql and a transaction of their own has them."""

import re
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from store.desk import Desk

from taskrunner.store.migrate import schema_files
from taskrunner.store.queries import sql


async def enqueue(desk: Desk, **arguments: Any) -> UUID:
    call = ", ".join(f"{name} => %({name})s" for name in arguments)
    (row,) = await (await desk.db.execute(f"select taskrunner_enqueue({call}) as id", arguments)).fetchall()
    id_: UUID = row["id"]
    return id_


async def cancel(desk: Desk, id_: UUID) -> str | None:
    (row,) = await desk.rows("select taskrunner_cancel(%s) as status", id_)
    status: str | None = row["status"]
    return status


async def test_every_argument_arrives(desk: Desk) -> None:
    at = datetime(2031, 5, 6, tzinfo=UTC)
    id_ = await enqueue(
        desk, task_type="é", payload='{"a": [1, null]}', run_at=at, queue="q", priority=4, max_attempts=9, timeout=1.5, unique_key="k",
        tags=["x", "y"], expires_at=at + timedelta(days=1), backoff='{"kind": "linear", "base": 2.5}', metadata='{"who": "me"}',
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", callback_url="https://example.com/hook",
    )  # fmt: skip
    row = await desk.row(id_)
    names = ("task_type", "payload", "run_at", "queue", "priority", "max_attempts", "timeout", "unique_key", "tags", "backoff", "metadata")
    assert [row[name] for name in names] == [
        *("é", {"a": [1, None]}, at, "q", 4, 9, 1.5, "k", ["x", "y"], {"kind": "linear", "base": 2.5}, {"who": "me"}),
    ]
    assert (row["status"], row["expires_at"], row["callback_url"]) == ("PENDING", at + timedelta(days=1), "https://example.com/hook")


async def test_defaults_are_those_of_the_api(desk: Desk) -> None:
    row = await desk.row(await enqueue(desk, task_type="t"))
    twin = await desk.row((await desk.create(payload="{}"))[0])
    times = {"id", "created_at", "updated_at", "run_at"}
    assert {name: value for name, value in row.items() if name not in times} == {n: v for n, v in twin.items() if n not in times}
    later = await desk.row(await enqueue(desk, task_type="t", delay=timedelta(hours=1)))
    assert timedelta(minutes=59) < later["run_at"] - later["created_at"] < timedelta(minutes=61)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"run_at": datetime(2031, 1, 1, tzinfo=UTC), "delay": timedelta(1)}, "delay cannot be combined"),
        ({"delay": timedelta(-1)}, "delay must be"),
        ({"unique_key": "k", "on_conflict": "merge"}, "on_conflict must be"),
        ({"on_conflict": "reject"}, "on_conflict says"),
        ({"unique_key": ""}, "unique_key must"),
        ({"run_at": datetime(2031, 1, 1, tzinfo=UTC), "expires_at": datetime(2031, 1, 1, tzinfo=UTC)}, "expires_at must be later"),
        ({"metadata": "[]"}, "metadata must be"),
        ({"backoff": '{"kind": "cubic"}'}, "backoff must be"),
        ({"backoff": '{"base": 0}'}, "backoff must be"),
        ({"backoff": '{"base": "1"}'}, "backoff must be"),
        ({"backoff": '{"pace": 1}'}, "backoff must be"),
        ({"backoff": '{"base": 1e400}'}, "backoff must be"),
        ({"backoff": '{"cap": 2592001}'}, "backoff must be"),
        ({"backoff": '{"kind": null}'}, "backoff must be"),
        ({"task_type": ""}, "task_type must have"),
        ({"queue": "q" * 201}, "queue must have"),
        ({"delay": timedelta(36_526)}, "delay must be"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"timeout": 0}, "timeout must be"),
        ({"timeout": 2_592_001}, "timeout must be"),
        ({"expires_at": "infinity"}, "expires_at must be a time"),
        ({"expires_at": "-infinity"}, "expires_at must be a time"),
        ({"expires_at": "10000-01-01"}, "expires_at must be a time"),
        ({"tags": ["x", None]}, "tags must be"),
        ({"tags": [""]}, "tags must be"),
        ({"tags": ["x" * 101]}, "tags must be"),
        ({"tags": ["x"] * 21}, "tags must be"),
        ({"tags": [["x", "y"], ["z", "w"]]}, "tags must be"),
        ({"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"}, "traceparent must be"),
        ({"callback_url": "ftp://example.com"}, "callback_url must be"),
        ({"callback_url": "https://me:secret@example.com"}, "callback_url must be"),
    ],
)
async def test_what_the_api_refuses_is_refused(desk: Desk, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=said):
        await enqueue(desk, **{"task_type": "t", **arguments})
    assert await desk.rows("select from tasks") == []


async def test_a_rolled_back_task_never_was(desk: Desk, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("select taskrunner_enqueue('t')")
        await connection.rollback()
    assert await desk.rows("select from tasks") == []


async def test_a_unique_key_returns_rejects_replaces_postpones(desk: Desk) -> None:
    first = await enqueue(desk, task_type="t", payload="1", unique_key="k")
    assert await enqueue(desk, task_type="t", payload="2", unique_key="k") == first
    assert (await desk.row(first))["payload"] == 1
    with pytest.raises(psycopg.errors.UniqueViolation, match=str(first)):
        await enqueue(desk, task_type="t", unique_key="k", on_conflict="reject")
    assert await enqueue(desk, task_type="u", payload="3", unique_key="k", on_conflict="replace", priority=4) == first
    row = await desk.row(first)
    assert (row["task_type"], row["payload"], row["priority"]) == ("u", 3, 4)
    assert await enqueue(desk, task_type="v", unique_key="k", on_conflict="postpone", delay=timedelta(hours=1)) == first
    later = await desk.row(first)
    assert (later["task_type"], later["run_at"] > row["run_at"]) == ("u", True)


async def test_the_limits_themselves_are_taken(desk: Desk) -> None:
    row = await desk.row(
        await enqueue(
            desk, task_type="t" * 200, delay=timedelta(36_525), timeout=2_592_000, backoff='{"base": 2592000, "cap": 2592000}',
            tags=["x" * 100] * 20, expires_at="9999-12-31 23:59:59.999999+00",
        )
    )  # fmt: skip
    assert (row["timeout"], len(row["tags"]), row["expires_at"].year) == (2_592_000, 20, 9999)
    assert (await desk.row(await enqueue(desk, task_type="t", tags=[], timeout=None)))["tags"] == []


async def test_no_postpone_moves_a_task_behind_its_own_expiry(desk: Desk) -> None:
    at = datetime(2031, 5, 6, tzinfo=UTC)
    first = await enqueue(desk, task_type="t", unique_key="k", expires_at=at)
    late = {"task_type": "t", "unique_key": "k", "on_conflict": "postpone", "run_at": at}
    with pytest.raises(psycopg.errors.UniqueViolation, match=f"{first} .* expires before"):
        await enqueue(desk, **late)
    assert (await desk.row(first))["run_at"] < at
    await desk.db.execute("update tasks_live set attempt = 1")
    assert await enqueue(desk, **late) == first, "one that has started once does not expire"
    assert (await desk.row(first))["run_at"] == at


async def test_a_held_one_cannot_be_changed(desk: Desk) -> None:
    held = await desk.held(unique_key="k")
    for how in ("reject", "replace", "postpone"):
        with pytest.raises(psycopg.errors.UniqueViolation, match="QUEUED"):
            await enqueue(desk, task_type="t", unique_key="k", on_conflict=how)
    assert await enqueue(desk, task_type="t", unique_key="k") == held.ids[0]


async def test_cancel_says_what_became_of_it(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    waiting = await enqueue(desk, task_type="t", metadata='{"a": 1}', callback_url="http://example.com")
    assert await cancel(desk, waiting) == "CANCELLED"
    row = await desk.row(waiting)
    assert (row["status"], row["metadata"]) == ("CANCELLED", {"a": 1})
    assert len(await desk.rows("select from tasks_live where task_type = 'webhook'")) == 1
    assert [(count.status, count.n) for count in await desk.store.counts() if count.status == "CANCELLED"] == [("CANCELLED", 1)]
    await desk.db.execute("delete from tasks_live")
    held = await desk.held(started=True)
    assert await cancel(desk, held.ids[0]) == "RUNNING"
    assert (await desk.row(held.ids[0]))["cancel_requested_at"] is not None
    assert await cancel(desk, waiting) == "CANCELLED"
    assert await cancel(desk, uuid4()) is None


async def test_the_caller_s_search_path_decides_nothing(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    await desk.db.execute("create schema other; create table other.tasks_live (like public.tasks_live); set search_path = other")
    (row,) = await desk.rows("select public.taskrunner_enqueue('t') as id")
    assert await desk.rows("select from other.tasks_live") == []
    assert await desk.rows("select from public.tasks_live where id = %s", row["id"]) != []
    await desk.rows("select public.taskrunner_cancel(%s)", row["id"])
    assert await desk.rows("select from public.tasks_live") == []


def test_cancel_ends_a_task_as_all_other_statements_do() -> None:
    """The ending fragment stands a second time in the schema, which has no fragments: word by word, but for what our metrics are told."""
    (schema,) = [file.read_text() for file in schema_files().iterdir() if file.name == "00001_tasks.sql"]
    text = sql("cancel_pending")
    ending = text[text.index("kept as (") : text.index("select c.*")]
    assert " ".join(ending.split()).replace(" returning queue, task_type, outcome, n)", ")") in " ".join(schema.split())
    assert re.search(r"fragment: ending", files("taskrunner.store").joinpath("sql/tasks.sql").read_text())
