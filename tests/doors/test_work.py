"""Claim, beat and settle over HTTP, one call at a time."""

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from doors.door import LEASE, WHO, Door, begun, door_at, outcome

from taskrunner.api.pull import Pull
from taskrunner.domain.task import NewTask
from taskrunner.settings import Settings
from taskrunner.store.pulling import Puller, Pulling
from taskrunner.store.tasks import open_store


async def test_a_claim_has_all_that_a_worker_needs(door: Door) -> None:
    made = await door.client.create("t", {"n": 1}, max_attempts=3, timeout=2.5)
    (task,) = await door.claim()
    assert task == {
        "id": made.id,
        "epoch": 1,
        "task_type": "t",
        "queue": "default",
        "attempt": 1,
        "max_attempts": 3,
        "timeout": 2.5,
        "run_at": task["run_at"],
        "payload": {"n": 1},
        "traceparent": None,
    }
    assert task["run_at"].endswith("Z")
    assert (await door.client.get(made.id)).status == "QUEUED"
    assert await door.claim() == []


async def test_a_claim_has_the_traces_that_there_are(door: Door) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    made = [await door.client.create("t"), await door.client.create("t", traceparent=trace)]
    assert {task["id"]: task["traceparent"] for task in await door.claim(max=2)} == {made[0].id: None, made[1].id: trace}


async def test_only_what_was_asked_for_and_is_due(door: Door) -> None:
    await door.client.create("other")
    await door.client.create("t", queue="elsewhere")
    await door.client.create("t", delay=60)
    assert await door.claim(queues=["default"]) == []
    assert [task["queue"] for task in await door.claim(max=9)] == ["elsewhere"]


async def test_the_best_first_and_not_more_than_asked(door: Door) -> None:
    for priority in (4, 3, 2, 1):
        await door.client.create_batch([{"task_type": "t", "priority": priority, "payload": priority} for _ in range(2)])
    assert sorted(task["payload"] for task in await door.claim(max=3)) == [1, 1, 2]
    assert sorted(task["payload"] for task in await door.claim(max=500)) == [2, 3, 3, 4, 4]


async def test_a_claim_waits_until_there_is_something(door: Door) -> None:
    async with asyncio.TaskGroup() as group:
        claiming = group.create_task(door.claim(wait=10))
        await begun(door, claiming)
        made = await door.client.create("t")
    assert [task["id"] for task in claiming.result()] == [made.id]


async def test_what_nobody_told_us_of_is_found(door: Door) -> None:
    async with asyncio.TaskGroup() as group:
        claiming = group.create_task(door.claim(wait=10))
        await begun(door, claiming)
        await door.sql("insert into tasks_live (task_type, payload) values ('t', '7')")
    assert [task["payload"] for task in claiming.result()] == [7]


async def test_nothing_is_claimed_before_its_time(door: Door) -> None:
    await door.client.create("t", delay=0.5)
    began = time.monotonic()
    (task,) = await door.claim(wait=10)
    assert 0.45 < time.monotonic() - began < 5
    assert (await door.sql("select now() >= run_at from tasks_live")) == [(True,)], task


async def test_a_claim_gives_up_after_its_time_and_keeps_its_idle_session(door: Door) -> None:
    assert await door.claim(wait=2 * LEASE) == []
    assert await door.sql("select lease_until > clock_timestamp() from sessions") == [(True,)]
    assert await door.claim() == []


async def test_a_beat_says_what_runs_and_hears_what_is_to_stop(door: Door) -> None:
    made = await door.client.create("t")
    (task,) = await door.claim()
    assert await door.beat(task) == {"alive": True, "cancel": [], "drain": False}
    assert (await door.client.get(made.id)).status == "RUNNING"
    await door.client.cancel(made.id)
    assert await door.beat(task) == {"alive": True, "cancel": [[made.id, 1]], "drain": False}
    await door.settle(outcome(task, "CANCELLED"))
    assert (await door.client.get(made.id)).status == "CANCELLED"


async def test_a_dead_session_gets_nothing_more(door: Door) -> None:
    await door.client.create("t")
    (task,) = await door.claim()
    await door.sql("update sessions set status = 'DEAD', dead_at = now()")
    assert await door.beat(task) == {"alive": False, "cancel": [], "drain": False}
    refused = await door.call("claim", status=409, session=door.session, **WHO)
    assert refused["code"] == "session_over"
    assert (await door.call("claim", status=409, session=str(uuid4()), **WHO))["code"] == "session_over"


async def test_what_no_beat_names_goes_back_after_a_lease(door: Door) -> None:
    await door.client.create_batch([{"task_type": "t", "payload": n} for n in range(2)])
    (heard,) = await door.claim()
    await door.beat(heard)
    (lost,) = await door.claim()  # its answer never arrived, say
    while await door.sql("select 1 from tasks_live where status = 'QUEUED'"):
        assert (await door.beat(heard))["alive"]
        await asyncio.sleep(0.05)
    (again,) = await door.claim()
    assert (again["id"], again["epoch"], again["attempt"]) == (lost["id"], lost["epoch"] + 1, 1)
    assert (await door.settle(outcome(lost, "COMPLETED")))["stale"] == [[lost["id"], lost["epoch"]]]


async def test_a_client_that_hung_up_gets_nothing(door: Door) -> None:
    async with ClientSession(door.http._base_url) as other:
        asking = asyncio.ensure_future(other.post("/api/work/claim", json=WHO | {"wait": 30}))
        await begun(door, asking)
        asking.cancel()
        await asyncio.wait([asking])
    made = await door.client.create("t")
    assert [task["id"] for task in await door.claim(wait=5)] == [made.id]


async def test_two_who_ask_at_once_share(door: Door) -> None:
    await door.client.create_batch([{"task_type": "t"} for _ in range(40)])
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(door.call("claim", **WHO, max=10)) for _ in range(4)]
    ids = [task["id"] for one in asking for task in one.result()["tasks"]]
    assert len(ids) == len(set(ids)) == 40


async def test_a_paused_queue_is_left_alone(door: Door) -> None:
    await door.client.create("t", queue="q")
    await door.sql("insert into gates (scope, name, closed_until) values ('queue', 'q', 'infinity')")
    assert await door.claim() == []
    await door.sql("delete from gates")
    assert len(await door.claim(wait=5)) == 1


async def test_tasks_that_lost_a_worker_come_back_step_by_step(door: Door) -> None:
    await door.client.create_batch([{"task_type": "t"} for _ in range(3)])
    await door.sql("update tasks_live set crashes = 1, max_attempts = 5, timeout = 9")
    (one,) = await door.claim(max=5)
    assert await door.claim(max=5) == []
    await door.settle(outcome(one, "COMPLETED"))
    assert len(await door.claim(max=5)) == 1
    await door.sql("update tasks_live set crashes = 2")
    assert await door.claim(max=5) == []
    await door.sql("update tasks_live set crashes = 1, status = 'RUNNING' where status = 'QUEUED'")
    assert len(await door.claim(max=5)) == 1


async def test_a_session_that_is_to_drain_gets_nothing(door: Door) -> None:
    assert await door.claim() == []
    await door.sql("update sessions set drain_requested_at = now()")
    await door.client.create("t")
    assert await door.claim(wait=0.3) == []
    assert (await door.beat())["drain"]


async def test_a_service_that_stops_lets_those_go_that_wait(dsn: str) -> None:
    async with ClientSession() as http:
        async with door_at(dsn) as door:
            asking = asyncio.ensure_future(http.post(f"{door.client._transport._base}/api/work/claim", json=WHO | {"wait": 60}))
            await begun(door, asking)
            began = time.monotonic()
        assert (await (await asking).json())["tasks"] == []
    assert time.monotonic() - began < 10


async def test_nothing_is_kept_of_a_lane_that_is_forgotten(dsn: str) -> None:
    settings = Settings(_env_file=None)
    async with open_store(dsn, settings) as store:
        await store.create([NewTask(task_type="t", payload="1", queue=f"tenant-{n}") for n in range(5)])
        pull = Pull(Pulling(store.pool, store.meter, lease=LEASE), store.hints, settings)
        claim = await pull.claim(None, Puller("w", ("t",), ("*",), 9), wait=0, gone=bool)
        assert claim is not None
        assert len(claim.claimed) == 5
        assert pull._lanes.to_peek() == []
        await pull.close()


@pytest.mark.parametrize(
    ("what", "body", "pointer"),
    [
        ("claim", {"name": "x"}, "/task_types"),
        ("claim", WHO | {"task_types": []}, "/task_types"),
        ("claim", WHO | {"max": 0}, "/max"),
        ("claim", WHO | {"max": 501}, "/max"),
        ("claim", WHO | {"wait": 61}, "/wait"),
        ("claim", WHO | {"session": "x"}, "/session"),
        ("claim", WHO | {"slots": 1}, "/slots"),
        ("beat", {"session": str(uuid4()), "running": [["x", 1]]}, "/running/0/0"),
        ("beat", {"session": str(uuid4()), "running": [[str(uuid4()), -1]]}, "/running/0/1"),
        ("settle", {"session": str(uuid4()), "outcomes": [{"id": str(uuid4()), "epoch": 1, "outcome": "done"}]}, "/outcomes/0/outcome"),
        ("settle", {"session": str(uuid4()), "outcomes": [{"id": str(uuid4()), "outcome": "FAILED"}]}, "/outcomes/0/epoch"),
        ("settle", {"session": str(uuid4())}, "/outcomes"),
    ],
)
async def test_what_is_wrong_is_named(door: Door, what: str, body: dict[str, Any], pointer: str) -> None:
    refused = await door.call(what, status=422, **body)
    assert [fault["pointer"] for fault in refused["errors"]] == [pointer]
