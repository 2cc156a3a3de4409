"""Queues, types and workers: counts, pauses, drains."""

import asyncio
from typing import Any
from uuid import uuid4

from api.door import Api, problem
from yarl import URL

from taskrunner.api.fleet import Shared


async def items(api: Api, what: str) -> dict[str, dict[str, Any]]:
    async with api.http.get(f"/api/{what}") as answer:
        assert answer.status == 200
        return {item["name"]: item for item in (await answer.json())["items"]}


async def test_queues_and_types_are_counted(api: Api) -> None:
    for queue, task_type, delay in (("a", "x", 0), ("a", "y", 3600), ("b", "x", 0)):
        await api.create(queue=queue, task_type=task_type, delay=delay)
    await api.hold((await api.create(queue="b", task_type="x"))["id"])
    done = await api.create(queue="old", task_type="gone")
    async with api.http.post(f"/api/tasks/{done['id']}/cancel") as answer:
        assert answer.status == 200
    wanted = {
        "queues": {"a": (1, 1, 0), "b": (1, 0, 1), "old": (0, 0, 0)},
        "types": {"x": (2, 0, 1), "y": (0, 1, 0), "gone": (0, 0, 0)},
    }
    for what, counts in wanted.items():
        found = await items(api, what)
        assert {name: (one["ready"], one["scheduled"], one["running"]) for name, one in found.items()} == counts
        assert all((one["oldest_ready_age"] is None) == (not one["ready"]) for one in found.values())
    await api.sql("update tasks_live set run_at = now() - interval '6 days' where queue = 'a' and task_type = 'x'")
    assert (await items(api, "queues"))["a"]["oldest_ready_age"] < 60  # nobody waits before he is there
    await api.sql("update tasks_live set created_at = now() - interval '1 minute' where queue = 'a' and task_type = 'x'")
    assert 60 < (await items(api, "queues"))["a"]["oldest_ready_age"] < 120


async def test_a_pause_lasts_until_it_is_resumed_and_may_be_said_again(api: Api) -> None:
    for what, scope in (("queues", "queue"), ("types", "type")):
        for verb, paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
            async with api.http.post(f"/api/{what}/a%2Fb%20c/{verb}") as answer:
                assert (answer.status, await answer.json()) == (200, {"name": "a/b c", "paused": paused})
            assert [*await items(api, what)] == (["a/b c"] if paused else [])
            assert len(await api.sql("select 1 from gates where scope = %s and closed_until = 'infinity'", scope)) == paused
    for name in ("%00", "%ff", "%c3"):
        async with api.http.post(URL(f"/api/queues/{name}/pause", encoded=True)) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (400, "invalid_parameter")
    assert await items(api, "queues") == {}


async def test_a_pause_wakes_the_schedulers(api: Api) -> None:
    heard: list[Any] = []
    api.store.hints.subscribe(heard.append)
    async with api.http.post("/api/queues/q/resume") as answer:
        assert answer.status == 200
    while not any(hint.look for hint in heard):
        await asyncio.sleep(0.01)


async def test_workers_are_listed_with_what_they_hold_and_can_be_asked_to_drain(api: Api) -> None:
    await api.hold((await api.create())["id"])
    ((session,),) = await api.sql(
        "update sessions set name = 'w', version = '2.0', lag = 0.5, slots = 7, task_types = '{x}' returning id::text"
    )
    await api.sql("insert into sessions (id, status, dead_at, lease_until) values (%s, 'DEAD', now(), now())", str(uuid4()))
    async with api.http.get("/api/workers") as answer:
        found = {one["session"]: one for one in (await answer.json())["items"]}
    assert sorted(one["status"] for one in found.values()) == ["DEAD", "LIVE"]
    assert (found[session]["name"], found[session]["slots"], found[session]["in_flight"]) == ("w", 7, 1)
    assert 0 <= found[session]["last_beat_age"] < 60
    assert (found[session]["version"], found[session]["lag"]) == ("2.0", 0.5)
    for _ in range(2):
        async with api.http.post(f"/api/workers/{session}/drain") as answer:
            assert (answer.status, (await answer.json())["status"]) == (202, "DRAINING")
    dead = next(one["session"] for one in found.values() if one["status"] == "DEAD")
    for id_, status in ((dead, 409), (str(uuid4()), 404), ("7", 400)):
        async with api.http.post(f"/api/workers/{id_}/drain") as answer:
            assert answer.status == (await problem(answer))["status"] == status


async def test_who_asks_while_it_is_counted_shares_the_count() -> None:
    asked, go = 0, asyncio.Event()

    async def count() -> int:
        nonlocal asked
        asked += 1
        await go.wait()
        return asked

    shared = Shared(count)
    async with asyncio.TaskGroup() as group:
        three = [group.create_task(shared.get()) for _ in range(3)]
        await asyncio.sleep(0)
        three[0].cancel()
        go.set()
    assert [one.result() for one in three[1:]] == [1, 1]
    assert await shared.get() == 2
