"""FAILED tasks by kind of error: what is one kind, what counts, and which tasks are meant by it."""

from typing import Any
from uuid import UUID

import pytest
from store.desk import Desk

from taskrunner.domain.task import TaskFilter
from taskrunner.store.bulk import Bulks
from taskrunner.store.sessions import POISON_CAP
from taskrunner.store.settling import ERROR
from taskrunner.store.stats import Stats


async def messages(desk: Desk, window: float = 86_400, task_type: str | None = None) -> dict[str, int]:
    return {one.message: one.count for one in await Stats(desk.store).failures(window, task_type=task_type)}


KINDS = [
    ("ValueError: order 4711 of 2026-11-24T08:25:12.5Z has no lines", "ValueError: order # of #Z has no lines"),
    ("the server answered 503", "the server answered 503"),
    ("no task 01a20ca8-aabc-7a76-8a58-f035ed8d43d5\nTraceback: line 7", "no task #"),
    ("connect to 10.0.0.17:5432 failed after 1000 ms", "connect to # failed after # ms"),
    ("127.0.0.1 answered 404, after 250ms", "# answered 404, after #ms"),
    ("object at 0x7F3A has digest 9fceb02d0ae598e95dc970b74767f193", "object at # has digest #"),
    ("utf8 is not latin1", "utf8 is not latin1"),
    ("faceless facade defaced", "faceless facade defaced"),
    ("x" * 500, "x" * 200),
    *((f"order {'7' * digits} has {'no ' * 100}lines", f"order # has {'no ' * 100}"[:200]) for digits in (1, 9, 150)),
    ("", ""),
]


async def test_errors_of_a_kind_have_one_message(desk: Desk) -> None:
    found = await desk.rows("select taskrunner_error_group(error) as kind from unnest(%s::text[]) error", [error for error, _ in KINDS])
    assert [row["kind"] for row in found] == [kind for _, kind in KINDS]


async def fail(desk: Desk, reason: str, n: int = 1, **fields: Any) -> list[UUID]:
    held = await desk.held(n, **fields)
    await desk.settling.settle(ERROR, held.error(delay=None, reason=reason))
    return held.ids


async def test_failures_are_grouped_and_what_leaves_is_taken_off(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    first = await fail(desk, "no order 17")
    others = await fail(desk, "no order 18", 3)
    await fail(desk, "no order 19", task_type="u")
    await fail(desk, "no disk", 2)
    assert await messages(desk, task_type="t") == {"no order #": 4, "no disk": 2}
    assert [one.task_type for one in await Stats(desk.store).failures(3600)] == ["t", "t", "u"]
    (latest, *_) = await Stats(desk.store).failures(3600)
    assert latest.example_id == max(others)
    assert await desk.store.retry(first[0]) is not None
    assert await messages(desk, task_type="t") == {"no order #": 3, "no disk": 2}


@pytest.mark.parametrize("verb", ["retry", "delete"])
async def test_all_tasks_of_one_kind_of_error_can_be_meant(desk: Desk, verb: str) -> None:
    await desk.upkeep.make_leaves()
    await fail(desk, "no order 18", 3)
    kept = await fail(desk, "no disk")
    which = TaskFilter(error="no order #")
    assert len(await desk.store.list(which)) == 3
    bulks = Bulks(desk.store)
    operation = await bulks.begin(verb, which)
    while await bulks.run_once():
        pass
    done = await bulks.get(operation.id)
    assert done is not None
    assert (done.status, done.done) == ("DONE", 3)
    assert await messages(desk) == {"no disk": 1}
    assert await desk.statuses(kept) == ["FAILED"]


LONG = [f"order {'7' * digits} 503 has {'no ' * 700}lines" for digits in (1, 195, 990)]
ODD = [*LONG[:1], "100% of _ is \\ gone # 4711", "order 17\nand more", "x" * 150 + " 4711 " + "y" * 150, "4711", "'quoted' \"twice\" 12345"]


async def test_whatever_an_error_is_its_kind_finds_it(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    failed = {(await fail(desk, error))[0]: error for error in ODD}
    kinds = {one.example_id: one.message for one in await Stats(desk.store).failures(3600)}
    for task, error in failed.items():
        assert [found.id for found in await desk.store.list(TaskFilter(error=kinds[task]))] == [task], error


async def test_numbers_do_not_count_however_long_the_line_is(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    for error in LONG[:2]:
        await fail(desk, error)
    (kind,) = await messages(desk)
    assert (kind[:15], len(kind)) == ("order # 503 has", 200)
    assert len(await desk.store.list(TaskFilter(error=kind))) == 2
    (other,) = await fail(desk, LONG[2])
    (cut,) = (await messages(desk)).keys() - {kind}
    assert [task.id for task in await desk.store.list(TaskFilter(error=cut))] == [other], "the cut changes the kind, and it is found"


async def test_an_operation_from_before_there_was_the_filter_goes_on(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    await fail(desk, "no disk", 2)
    bulks = Bulks(desk.store)
    operation = await bulks.begin("delete", TaskFilter())
    await desk.rows("update bulk_operations set filter = filter - 'error' returning id")
    while await bulks.run_once():
        pass
    done = await bulks.get(operation.id)
    assert done is not None
    assert (done.status, done.done) == ("DONE", 2)


async def test_tasks_that_nobody_settles_fail_by_kind_too(desk: Desk) -> None:
    await desk.upkeep.make_leaves()
    await desk.create(1, expires_at=await desk.now())
    assert await desk.upkeep.expire() == 1
    held = await desk.held(1, started=True)
    await desk.rows("update tasks_live set crashes = %s returning id", POISON_CAP)
    await desk.db.execute("update sessions set status = 'DEAD', dead_at = now() where id = %s", (held.session,))
    await desk.sessions.take_back()
    found = await messages(desk)
    assert found.pop("expired before it started") == 1
    assert [n for message, n in found.items() if message.startswith("given up")] == [1]
