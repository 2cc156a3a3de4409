"""Queues, types, workers and pages through both clients."""

import inspect

import pytest
from api.door import Api

from taskrunner import Client, SyncClient
from taskrunner.client import NotFound, Refused

SESSION = "01a20d04-0000-7000-8000-000000000001"


async def test_pages_are_as_the_service_sent_them(api: Api, client: Client) -> None:
    ids = [(await api.create(payload=n))["id"] for n in range(5)]
    first = await client.page(limit=3)
    second = await client.page(first.next_cursor, limit=3)
    assert [task["id"] for task in [*first.items, *second.items]] == ids[::-1]
    assert second.next_cursor is None
    assert first.items[0]["run_at"].endswith("Z")


async def test_queues_types_and_pauses(api: Api, client: Client) -> None:
    await api.create(queue="a/b")
    await client.pause("queue", "a/b")
    await client.pause("type", "x")
    assert [(lot.name, lot.ready, lot.paused) for lot in await client.queues()] == [("a/b", 1, True)]
    assert [(lot.name, lot.paused) for lot in await client.types()] == [("x", True)]
    await client.resume("queue", "a/b")
    await client.resume("type", "x")
    assert [lot.paused for lot in [*await client.queues(), *await client.types()]] == [False, False]


async def test_workers_and_drain(api: Api, client: Client) -> None:
    await client.ready()
    await api.sql(
        "insert into sessions (id, name, lease_until, task_types) values (%s, 'box:1', now() + interval '1 hour', '{x}')", SESSION
    )
    assert [(worker.session, worker.status, worker.task_types) for worker in await client.workers()] == [(SESSION, "LIVE", ("x",))]
    assert (await client.drain(SESSION)).status == "DRAINING"
    await api.sql("update sessions set status = 'DEAD', dead_at = now()")
    with pytest.raises(Refused, match="dead already"):
        await client.drain(SESSION)
    with pytest.raises(NotFound):
        await client.drain(SESSION.replace("1", "2"))
    assert (await client.stats())["tasks"]["PENDING"] == 0


def test_both_clients_can_do_the_same() -> None:
    names = [{name for name, _ in inspect.getmembers(kind) if not name.startswith("_")} for kind in (Client, SyncClient)]
    assert names[0] == names[1]


async def test_many_at_once(api: Api, client: Client) -> None:
    for n in range(3):
        await api.finish((await api.create())["id"], "FAILED", error=f"no order {n}")
    assert (await client.count(status="FAILED", error="no order #")).count == 3
    bulk = await client.bulk("retry", error="no order #")
    while bulk.status == "RUNNING":
        bulk = await client.bulk_state(bulk.id)
    assert (bulk.done, (await client.count(status="PENDING")).count) == (3, 3)
    assert list(await client.errors(window=3_600)) == []  # nothing was settled by a scheduler
