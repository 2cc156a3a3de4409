"""Outcomes: each row fenced by its epoch, every batch safe to say again, no row in the way of its neighbours."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from store.desk import Desk, Held

from taskrunner.store.claims import Seat
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, GIVEN_BACK, Batch, Kind, Settled

NOTHING = Settled(b"", b"", {}, [])


async def test_what_is_done_is_kept_with_its_result(desk: Desk) -> None:
    held = await desk.held(2, tags=("x",), started=True)
    settled = await desk.settling.settle(COMPLETED, held.batch(results=['{"a": 1}', None]))
    assert settled == NOTHING
    first, second = [await desk.row(id_) for id_ in held.ids]
    assert (first["status"], first["result"], second["result"]) == ("COMPLETED", {"a": 1}, None)
    assert (first["session"], first["stream"], first["attempt"], first["epoch"], first["tags"]) == (None, None, 1, 1, ["x"])
    assert first["finished_at"] >= first["created_at"]
    assert await desk.rows("select from tasks_live") == []
    assert await desk.rows("select from attempts") == []  # a success writes none


async def test_started_is_written_for_what_is_held_under_that_epoch(desk: Desk) -> None:
    held = await desk.held(2)
    await desk.settling.start(*Held(held.session, 1, held.ids, [1, 2]).blobs, held.session.bytes)
    assert await desk.statuses(held.ids) == ["RUNNING", "QUEUED"]


@pytest.mark.parametrize("same", [True, False], ids=["with the same worker", "with another one"])
@pytest.mark.parametrize("kind", [COMPLETED, ERROR, GIVEN_BACK, CANCELLED], ids=lambda kind: kind.statement)
async def test_a_stale_epoch_changes_nothing_though_the_state_is_the_same(desk: Desk, kind: Kind, same: bool) -> None:
    """The task is QUEUED again, under a new epoch: where its worker has it again, nothing else tells the old attempt from the new one."""
    old = await desk.held()
    await desk.settling.settle(GIVEN_BACK, old.back())
    new = await desk.claim(Seat(old.session, old.stream, 1) if same else await desk.worker(), 1)
    assert (new.ids, new.epochs) == (old.ids, [2])
    before = await desk.row(old.ids[0])
    settled = await desk.settling.settle(kind, columns_of(kind, old))
    assert (settled.stale_ids, settled.stale_epochs) == old.blobs
    assert await desk.row(old.ids[0]) == before
    assert await desk.settling.settle(kind, columns_of(kind, new)) == NOTHING or kind in (ERROR, GIVEN_BACK)
    assert await desk.statuses(old.ids) != ["QUEUED"]


def columns_of(kind: Kind, held: Held) -> Batch:
    return {COMPLETED: held.done(), ERROR: held.error(), GIVEN_BACK: held.back(), CANCELLED: held.batch()}[kind]


@pytest.mark.parametrize("kind", [COMPLETED, ERROR, GIVEN_BACK, CANCELLED], ids=lambda kind: kind.statement)
async def test_a_batch_said_again_is_settled_already(desk: Desk, kind: Kind) -> None:
    held = await desk.held(3)
    await desk.settling.settle(kind, columns_of(kind, held))
    before = [await desk.row(id_) for id_ in held.ids]
    assert await desk.settling.settle(kind, columns_of(kind, held)) == NOTHING
    assert [await desk.row(id_) for id_ in held.ids] == before
    assert len(await desk.rows("select from attempts")) == (3 if kind is ERROR else 0)


async def test_another_outcome_for_a_settled_task_is_stale(desk: Desk) -> None:
    held = await desk.held()
    await desk.settling.settle(COMPLETED, held.done())
    for kind in (ERROR, CANCELLED):
        assert (await desk.settling.settle(kind, columns_of(kind, held))).stale_ids == held.blobs[0]
    nobody = Held(held.session, 1, [uuid4()], [1])
    assert (await desk.settling.settle(COMPLETED, nobody.done())).stale_ids == nobody.blobs[0]
    assert await desk.statuses(held.ids) == ["COMPLETED"]


async def test_of_a_mixed_batch_only_the_stale_pairs_are_named(desk: Desk) -> None:
    held = await desk.held(4)
    mixed = Held(held.session, 1, held.ids, [1, 9, 1, 9])
    settled = await desk.settling.settle(COMPLETED, mixed.done())
    stale = Held(held.session, 1, [held.ids[1], held.ids[3]], [9, 9])
    assert {settled.stale_ids[n : n + 16] for n in (0, 16)} == {id_.bytes for id_ in stale.ids}
    assert settled.stale_epochs == stale.blobs[1]
    assert await desk.statuses(held.ids) == ["COMPLETED", "QUEUED", "COMPLETED", "QUEUED"]


async def test_an_error_is_tried_again_after_its_delay_and_leaves_a_row(desk: Desk) -> None:
    held = await desk.held(started=True, priority=3)
    at = await desk.now()
    settled = await desk.settling.settle(
        ERROR, held.batch(errors="broken", tracebacks="line 1", delays=60.0, run_ms=(77).to_bytes(4, "big"))
    )
    row = await desk.row(held.ids[0])
    assert (row["status"], row["session"], row["attempt"], row["error"]) == ("PENDING", None, 1, "broken")
    assert timedelta(seconds=60) <= row["run_at"] - at < timedelta(seconds=65)
    ((lane, run_at, due_in),) = settled.back
    assert (lane.priority, run_at) == (3, row["run_at"])
    assert 55 < due_in <= 60
    (attempt,) = (await desk.store.attempts(held.ids))[held.ids[0]]
    assert (attempt.attempt, attempt.outcome, attempt.error, attempt.traceback, attempt.worker, attempt.run_ms) == (
        *(1, "ERROR", "broken", "line 1", "w", 77),
    )


async def test_the_last_attempt_fails_and_so_does_one_without_a_delay(desk: Desk) -> None:
    last, given_up = await desk.held(attempts=1), await desk.held(attempts=5)
    for held, delay in ((last, 1.0), (given_up, None)):
        settled = await desk.settling.settle(ERROR, held.error(delay, "no more"))
        row = await desk.row(held.ids[0])
        assert (settled.back, row["status"], row["error"], row["attempt"]) == ([], "FAILED", "no more", 1)
        assert len((await desk.store.attempts(held.ids))[held.ids[0]]) == 1


async def test_every_attempt_counts_until_they_are_used_up(desk: Desk) -> None:
    (id_,) = await desk.create(max_attempts=3)
    worker = await desk.worker()
    for attempt in (1, 2, 3):
        held = await desk.claim(worker, 1)
        await desk.settling.settle(ERROR, held.error(0.0, f"error {attempt}"))
    row = await desk.row(id_)
    assert (row["status"], row["attempt"], row["epoch"], row["error"]) == ("FAILED", 3, 3, "error 3")
    assert [(one.attempt, one.error) for one in (await desk.store.attempts([id_]))[id_]] == [(n, f"error {n}") for n in (1, 2, 3)]


@pytest.mark.parametrize("kind", [ERROR, GIVEN_BACK, CANCELLED], ids=lambda kind: kind.statement)
async def test_what_somebody_asked_to_cancel_does_not_run_again(desk: Desk, kind: Kind) -> None:
    held = await desk.held()
    await desk.store.cancel(held.ids[0])
    settled = await desk.settling.settle(kind, columns_of(kind, held))
    assert settled == NOTHING
    assert await desk.statuses(held.ids) == ["CANCELLED"]


async def test_a_handler_that_finishes_before_its_cancel_wins(desk: Desk) -> None:
    held = await desk.held()
    await desk.store.cancel(held.ids[0])
    await desk.settling.settle(COMPLETED, held.done())
    assert await desk.statuses(held.ids) == ["COMPLETED"]


async def test_what_is_given_back_does_not_count_as_an_attempt(desk: Desk) -> None:
    released, snoozed = await desk.held(), await desk.held(task_type="u")
    due = (await desk.row(released.ids[0]))["run_at"]
    settled = await desk.settling.settle(GIVEN_BACK, released.back())
    await desk.settling.settle(GIVEN_BACK, snoozed.back(3600.0))
    first, second = await desk.row(released.ids[0]), await desk.row(snoozed.ids[0])
    assert [(row["status"], row["attempt"], row["epoch"], row["session"]) for row in (first, second)] == [("PENDING", 0, 1, None)] * 2
    assert first["run_at"] == due
    assert second["run_at"] > await desk.now() + timedelta(minutes=59)
    assert [back.run_at for back in settled.back] == [due]
    assert await desk.rows("select from attempts") == []


async def test_lanes_that_got_tasks_back_are_told_once_each_with_the_first(desk: Desk) -> None:
    one, other = await desk.held(3), await desk.held(2, queue="q")
    both = Held(one.session, 1, one.ids + other.ids, one.epochs + other.epochs)
    batch = both.batch(errors="e", tracebacks=None, delays=[30.0, 10.0, 20.0, 5.0, 6.0])
    settled = await desk.settling.settle(ERROR, replace(batch, sessions=one.session.bytes * 3 + other.session.bytes * 2))
    assert {back.lane.queue: round(back.due_in) for back in settled.back} == {"default": 10, "q": 5}


REFUSED = {"NUL": '"\\u0000"', "not JSON": "{", "number": "1e1000000", "too deep": "[" * 100_000 + "]" * 100_000}


@pytest.mark.parametrize("result", REFUSED.values(), ids=REFUSED)
async def test_a_result_that_cannot_be_stored_fails_no_neighbour(desk: Desk, result: str) -> None:
    held = await desk.held(20)
    results: list[str | None] = [json.dumps(n) for n in range(20)]
    results[3] = results[11] = result
    settled = await desk.settling.settle(COMPLETED, held.batch(results=results))
    assert set(settled.refused) == {3, 11}
    assert all(settled.refused.values())
    assert await desk.statuses(held.ids) == ["QUEUED" if n in (3, 11) else "COMPLETED" for n in range(20)]
    assert (await desk.row(held.ids[7]))["result"] == 7
    bad = held.done().part([*settled.refused])
    assert bad.ids == held.ids[3].bytes + held.ids[11].bytes


async def test_an_error_text_that_cannot_be_stored_fails_no_neighbour(desk: Desk) -> None:
    held = await desk.held(3)
    settled = await desk.settling.settle(ERROR, held.batch(errors=["a", "b\0", "c"], tracebacks=None, delays=0.0))
    assert set(settled.refused) == {1}
    assert await desk.statuses(held.ids) == ["PENDING", "QUEUED", "PENDING"]


@pytest.mark.parametrize("kind", [COMPLETED, ERROR, GIVEN_BACK, CANCELLED], ids=lambda kind: kind.statement)
@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "at once"])
async def test_a_stranger_who_locks_a_row_does_not_stop_the_others(desk: Desk, kind: Kind, wait: bool) -> None:
    held = await desk.held(50)
    gone = await desk.settling.settle(kind, columns_of(kind, Held(held.session, 1, held.ids[:1], held.epochs[:1])))
    async with desk.db.transaction():
        await desk.db.execute("select from tasks_live where id = %s for update", (held.ids[20],))
        began = time.monotonic()
        settled = await desk.settling.settle(kind, columns_of(kind, held), wait=wait)
        assert (time.monotonic() - began < 0.9) is not wait  # lock_timeout is a second
        assert settled.locked == {held.ids[20].bytes}
        assert not settled.stale_ids
        assert await desk.rows("select id from tasks_live where status = 'QUEUED'") == [{"id": held.ids[20]}]
        assert sum(1 for _ in gone.back + settled.back) == (2 if kind in (ERROR, GIVEN_BACK) else 0)
    assert not (await desk.settling.settle(kind, columns_of(kind, held), wait=wait)).locked
    assert "QUEUED" not in await desk.statuses(held.ids)
    assert sum(one.n for one in await desk.store.counts()) == 50


async def test_a_start_that_a_stranger_has_locked_is_said_again(desk: Desk) -> None:
    held = await desk.held(3)
    async with desk.db.transaction():
        await desk.db.execute("select from tasks_live where id = %s for update", (held.ids[1],))
        assert await desk.settling.start(*held.blobs, held.session.bytes) == {held.ids[1].bytes}
        assert await desk.statuses(held.ids) == ["RUNNING", "QUEUED", "RUNNING"]
    assert await desk.settling.start(*held.blobs, held.session.bytes) == frozenset()
    assert await desk.statuses(held.ids) == ["RUNNING"] * 3


async def test_a_missing_leaf_is_made_and_the_batch_repeated(desk: Desk) -> None:
    held, failing = await desk.held(3), await desk.held()
    assert await desk.rows("select from pg_inherits where inhparent in ('tasks_finished'::regclass, 'attempts'::regclass)") == []
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.settling.settle(COMPLETED, held.done()))
        group.create_task(desk.store.cancel(failing.ids[0]))
    await desk.settling.settle(ERROR, failing.error(0.0))
    assert await desk.statuses([*held.ids, *failing.ids]) == ["COMPLETED"] * 3 + ["CANCELLED"]


async def test_the_tally_counts_what_ended_and_how_long_it_ran(desk: Desk) -> None:
    done, failed = await desk.held(3), await desk.held(2, queue="q")
    await desk.settling.settle(COMPLETED, done.batch(run_ms=b"".join(n.to_bytes(4, "big") for n in (10, 20, 30))))
    await desk.settling.settle(COMPLETED, done.done())  # said again: not counted again
    await desk.settling.settle(ERROR, failed.error(None))
    rows = await desk.rows("select queue, task_type, outcome, n, run_ms, minute from tally order by queue")
    assert [tuple(row.values())[:5] for row in rows] == [("default", "t", "COMPLETED", 3, 60), ("q", "t", "FAILED", 2, 0)]
    assert all(row["minute"].second == row["minute"].microsecond == 0 for row in rows)
