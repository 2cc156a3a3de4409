"""How attempts end by the door over HTTP: every outcome, said once or twice, early or late."""

import asyncio
from uuid import uuid4

from doors.door import Door, outcome


async def test_every_outcome(door: Door) -> None:
    words = ("COMPLETED", "RETRY", "FAILED", "SNOOZED", "RELEASED", "CANCELLED")
    made = await door.client.create_batch([{"task_type": "t", "payload": word} for word in words])
    done, retry, failed, snoozed, released, cancelled = await door.claim(max=6)
    pairs = [[task["id"], task["epoch"]] for task in (done, retry, failed, snoozed, released, cancelled)]
    answer = await door.settle(
        outcome(done, "COMPLETED", result={"a": [1]}, run_ms=12),
        outcome(retry, "RETRY", error="E" * 3_000, traceback="T" * 9_000, delay=60),
        outcome(failed, "FAILED", error="never"),
        outcome(snoozed, "SNOOZED", delay=60),
        outcome(released, "RELEASED"),
        outcome(cancelled, "CANCELLED"),
    )
    assert answer == {"settled": pairs, "stale": []}
    found = [await door.client.get(one.id) for one in made]
    assert [(task.status, task.attempt) for task in found] == [
        ("COMPLETED", 1),
        ("PENDING", 1),
        ("FAILED", 1),
        ("PENDING", 0),
        ("PENDING", 0),
        ("CANCELLED", 1),
    ]
    assert found[0].result == {"a": [1]}
    assert (found[1].error, len(found[1].attempts[0].traceback or ""), found[1].attempts[0].worker) == ("E" * 2_000, 8_192, "test")
    assert found[2].error == "never"
    assert [task["id"] for task in await door.claim(max=6)] == [released["id"]]


async def test_a_retry_without_a_delay_is_by_the_tasks_own_backoff(door: Door) -> None:
    await door.client.create("t", backoff={"kind": "linear", "base": 100})
    (task,) = await door.claim()
    await door.settle(outcome(task, "RETRY", error="e"))
    assert await door.sql("select round(extract(epoch from run_at - updated_at)) from tasks_live") == [(100,)]


async def test_a_backoff_that_nobody_can_read_counts_as_none(door: Door) -> None:
    await door.client.create("t")
    (task,) = await door.claim()
    await door.sql("""update tasks_live set backoff = '{"base": 1e400, "cap": 1e400}'""")
    await door.settle(outcome(task, "RETRY", error="e"))
    assert await door.sql("select status, run_at < updated_at + interval '1 minute' from tasks_live") == [("PENDING", True)]


async def test_a_late_outcome_changes_nothing_and_the_same_one_may_be_said_again(door: Door) -> None:
    await door.client.create("t")
    (task,) = await door.claim()
    pair = [task["id"], task["epoch"]]
    late = await door.settle({"id": task["id"], "epoch": 7, "outcome": "COMPLETED"}, {"id": str(uuid4()), "epoch": 1, "outcome": "FAILED"})
    assert (late["settled"], len(late["stale"])) == ([], 2)
    for _ in range(2):
        assert await door.settle(outcome(task, "COMPLETED")) == {"settled": [pair], "stale": []}
    assert await door.settle(outcome(task, "FAILED")) == {"settled": [], "stale": [pair]}


async def test_an_attempt_ends_once_in_a_settle(door: Door) -> None:
    await door.client.create("t")
    (task,) = await door.claim()
    twice = [outcome(task, "COMPLETED"), outcome(task, "RETRY", error="e")]
    refused = await door.call("settle", status=422, session=door.session, outcomes=twice)
    assert refused["errors"][0]["pointer"] == "/outcomes/1"
    assert await door.sql("select status from tasks_live") == [("QUEUED",)]


async def test_what_is_no_pair_is_told_what_a_pair_is(door: Door) -> None:
    await door.claim()
    for held in ("x", [str(uuid4())], {"id": 1}, [str(uuid4()), 1, 2]):
        refused = await door.call("beat", status=422, session=door.session, running=[held])
        assert refused["error"] == "/running/0 must be a pair: [id, epoch]"


async def test_a_session_speaks_only_for_its_own(door: Door) -> None:
    """F44: another session's pairs are stale, and a beat that names them starts nothing."""
    await door.client.create("t")
    (task,) = await door.claim()
    thief = await door.call("claim", name="thief", task_types=["other"], wait=0)
    said = {"session": thief["session"]}
    assert (await door.call("settle", **said, outcomes=[outcome(task, "COMPLETED")]))["stale"] == [[task["id"], task["epoch"]]]
    await door.call("beat", **said, running=[[task["id"], task["epoch"]]])
    assert await door.sql("select status from tasks_live") == [("QUEUED",)]
    assert (await door.settle(outcome(task, "COMPLETED")))["stale"] == []


async def test_a_waiting_get_hears_of_a_settle(door: Door) -> None:
    made = await door.client.create("t")
    (task,) = await door.claim()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(door.client.wait(made.id, 10))
        await door.settle(outcome(task, "COMPLETED", result=5))
    assert waiting.result().result == 5
