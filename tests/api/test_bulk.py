"""Bulk operations: what they mean, what they do, and that they go on elsewhere."""

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from api.door import Api, answers, opened, problem, until

from taskrunner.domain.task import TaskFilter
from taskrunner.store.bulk import Bulks

ALL = '{"statuses": null, "task_type": null, "queue": null, "tags": null, "created_after": null, "created_before": null}'


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was locked, or is another process's, is looked for again soon."""
    monkeypatch.setattr("taskrunner.api.bulk.LOOK", 0.3)


async def begun(api: Api, verb: str, **body: Any) -> str:
    async with api.http.post(f"/api/tasks/bulk/{verb}", json=body) as answer:
        assert answer.status == 202, await answer.text()
        operation = await answer.json()
        assert answer.headers["Location"] == f"/api/bulk/{operation['id']}"
        assert (operation["verb"], operation["status"], operation["matched"]) == (verb, "RUNNING", 0)
        return str(operation["id"])


async def ended(api: Api, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def over() -> bool:
        async with api.http.get(f"/api/bulk/{id_}") as answer:
            found.update(await answer.json())
        return bool(found["status"] != "RUNNING")

    await until(over)
    assert found["finished_at"] is not None
    return found


async def statuses(api: Api) -> dict[str, int]:
    async with api.http.get("/api/stats") as answer:
        return {status: n for status, n in (await answer.json())["tasks"].items() if n}


async def test_cancel_ends_what_waits_and_tells_what_runs(api: Api) -> None:
    async with api.http.post("/api/tasks/batch", json=[{"task_type": "x", "queue": "q", "tags": ["a"], "delay": 60}] * 1_234) as answer:
        assert answer.status == 201
    held, other = await api.create(queue="q", tags=["a", "b"]), await api.create(queue="q")
    await api.hold(held["id"])
    operation = await ended(api, await begun(api, "cancel", queue="q", tag="a"))
    assert (operation["status"], operation["matched"], operation["done"], operation["failed"]) == ("DONE", 1_235, 1_235, 0)
    assert await statuses(api) == {"CANCELLED": 1_234, "RUNNING": 1, "PENDING": 1}
    assert await api.sql("select id::text from tasks_live where cancel_requested_at is not null") == [(held["id"],)]
    async with api.http.get(f"/api/tasks/{other['id']}") as answer:
        assert (await answer.json())["status"] == "PENDING"


async def test_retry_means_what_failed_unless_it_is_said(api: Api) -> None:
    for status in ("FAILED", "CANCELLED", "COMPLETED"):
        await api.finish((await api.create(tags=[status]))["id"], status)
    heard: list[Any] = []
    api.store.hints.subscribe(heard.append)
    assert (await ended(api, await begun(api, "retry", all=True)))["done"] == 2
    assert {lane.task_type for hint in heard for lane in hint.lanes} == {"x"}
    assert await api.sql("select tags from tasks_finished") == [(["COMPLETED"],)]
    assert (await ended(api, await begun(api, "retry", status=["COMPLETED"])))["done"] == 1
    assert await api.sql("select distinct status, attempt from tasks") == [("PENDING", 0)]


async def test_delete_takes_what_is_finished_within_the_filter(api: Api) -> None:
    old, new, live = [await api.create() for _ in range(3)]
    for task in (old, new):
        await api.finish(task["id"])
    operation = await ended(api, await begun(api, "delete", created_before=new["created_at"]))
    assert operation["done"] == 1
    assert {row[0] for row in await api.sql("select id::text from tasks")} == {new["id"], live["id"]}
    assert (await ended(api, await begun(api, "delete", status="COMPLETED", task_type="x")))["done"] == 1


async def test_of_equal_unique_keys_one_is_retried(api: Api) -> None:
    for _ in range(2):
        task = await api.create(unique_key="k")
        await api.finish(task["id"], "FAILED")
    operation = await ended(api, await begun(api, "retry", all=True))
    assert (operation["matched"], operation["done"], operation["failed"]) == (2, 1, 1)
    assert await api.sql("select status, count(*) from tasks group by 1 order by 1") == [("FAILED", 1), ("PENDING", 1)]


async def test_what_a_stranger_has_locked_is_counted_as_failed(api: Api) -> None:
    free, locked = await api.create(), await api.create()
    async with await psycopg.AsyncConnection.connect(api.dsn) as stranger:
        await stranger.execute("select 1 from tasks_live where id = %s for update", [locked["id"]])
        operation = await ended(api, await begun(api, "cancel", all=True))
    assert (operation["done"], operation["failed"]) == (1, 1)
    assert await api.sql("select id::text, status from tasks order by 1") == [(free["id"], "CANCELLED"), (locked["id"], "PENDING")]


async def test_tasks_that_are_made_later_are_not_meant(dsn: str, api: Api) -> None:
    await api.create()
    bulks = Bulks(api.store)
    operation = await bulks.begin("cancel", TaskFilter())
    later = await api.create()
    await ended(api, str(operation.id))
    assert await api.sql("select id::text from tasks_live") == [(later["id"],)]


async def test_a_process_that_dies_in_a_batch_leaves_the_operation_to_another(dsn: str) -> None:
    """The database takes the batch back and lets go of the row, as when this connection breaks."""
    async with opened(dsn) as api:
        await until(lambda: answers(api.http, "/readyz"))
        async with api.http.post("/api/tasks/batch", json=[{"task_type": "x"}] * 3_000) as answer:
            assert answer.status == 201
        dying = await psycopg.AsyncConnection.connect(dsn)
        (made,) = await (
            await dying.execute("insert into bulk_operations (verb, filter) values ('cancel', %s) returning id::text", [ALL])
        ).fetchall()
        await dying.commit()
        await dying.execute("select 1 from bulk_operations for update")
        await dying.execute("update tasks_live set cancel_requested_at = now()")
        assert not await Bulks(api.store).run_once()
        await dying.close()
        found = await ended(api, made[0])
    assert (found["done"], found["failed"]) == (3_000, 0)


@pytest.mark.parametrize(
    ("verb", "body", "pointer"),
    [
        ("cancel", {}, ""),
        ("cancel", {"all": False}, ""),
        *(("delete", {"all": word}, "/all") for word in (1, 1.0, "true", "on", "t", None)),
        ("cancel", {"all": True, "queue": "q"}, "/all"),
        ("cancel", {"status": ["COMPLETED"]}, "/status"),
        ("delete", {"status": "PENDING"}, "/status"),
        ("retry", {"status": ["DONE"]}, "/status/0"),
        ("delete", {"created_before": "yesterday"}, "/created_before"),
        ("delete", {"limit": 5}, "/limit"),
        ("delete", [], ""),
    ],
)
async def test_a_wrong_filter_is_refused(api: Api, verb: str, body: Any, pointer: str) -> None:
    async with api.http.post(f"/api/tasks/bulk/{verb}", json=body) as answer:
        document = await problem(answer)
    assert (answer.status, document["errors"][0]["pointer"]) == (422, pointer)
    assert await api.sql("select 1 from bulk_operations") == []


async def test_an_unknown_operation_is_404(api: Api) -> None:
    for id_, status in ((str(uuid4()), 404), ("7", 400)):
        async with api.http.get(f"/api/bulk/{id_}") as answer:
            assert answer.status == (await problem(answer))["status"] == status
