"""Reading and changing a task: get, wait, cancel, retry, run."""

import asyncio
import time
from uuid import UUID, uuid4

from api.door import Api, problem, until

from taskrunner.api.waiting import Hub


async def test_a_finished_task_has_its_result(api: Api) -> None:
    task = await api.create()
    await api.finish(task["id"], result='{"sum": [1, 2.50]}')
    async with api.http.get(f"/api/tasks/{task['id'].upper()}") as answer:
        found = await answer.json()
    assert (found["status"], found["result"], found["attempt"], found["error"]) == ("COMPLETED", {"sum": [1, 2.5]}, 1, None)
    assert found["finished_at"].endswith("Z")


async def test_failed_attempts_are_listed_oldest_first(api: Api) -> None:
    task = await api.create()
    await api.finish(task["id"], "FAILED", error="boom")
    for attempt in (1, 2):
        await api.sql(
            "insert into attempts (task_id, epoch, attempt, outcome, error, traceback, worker, run_ms, ended_at) "
            "values (%s, %s, %s, 'ERROR', 'boom', 'line 1', 'w1', 12, date_trunc('second', now()))",
            *(task["id"], attempt, attempt),
        )
    async with api.http.get(f"/api/tasks/{task['id']}") as answer:
        found = await answer.json()
    assert (found["status"], found["error"]) == ("FAILED", "boom")
    assert [attempt["attempt"] for attempt in found["attempts"]] == [1, 2]
    first = found["attempts"][0]
    assert list(first) == ["attempt", "outcome", "error", "traceback", "worker", "run_ms", "ended_at"]
    assert first["ended_at"].endswith(".000000Z")


async def test_unknown_ids_are_404_and_malformed_ones_400(api: Api) -> None:
    for method, path in [("GET", "{}"), ("POST", "{}/cancel"), ("POST", "{}/retry"), ("POST", "{}/run")]:
        for key, status, code in [
            (str(uuid4()), 404, "not_found"),
            ("7", 400, "invalid_parameter"),
            (uuid4().hex, 400, "invalid_parameter"),
        ]:
            async with api.http.request(method, "/api/tasks/" + path.format(key)) as answer:
                document = await problem(answer)
                assert (answer.status, document["code"]) == (status, code)


async def test_wait_answers_when_the_task_is_finished(api: Api) -> None:
    tasks = [await api.create() for _ in range(5)]

    async def wait(key: str) -> str:
        async with api.http.get(f"/api/tasks/{key}?wait=30") as answer:
            return str((await answer.json())["status"])

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(wait(task["id"])) for task in tasks]
        for task in tasks:
            await api.finish(task["id"])
    assert [wait.result() for wait in waits] == ["COMPLETED"] * 5
    assert time.monotonic() - began < 10


async def test_a_wait_ends_with_the_task_as_it_is(api: Api) -> None:
    task = await api.create(delay=60)
    for query, headers, applied in [("?wait=0.1", {}, None), ("", {"Prefer": "respond-async, wait=1"}, "wait=1")]:
        async with api.http.get(f"/api/tasks/{task['id']}{query}", headers=headers) as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "PENDING")
            assert answer.headers.get("Preference-Applied") == applied


async def test_a_longer_wish_is_shortened_and_the_answer_says_so(api: Api) -> None:
    task = await api.create()
    await api.finish(task["id"])
    async with api.http.get(f"/api/tasks/{task['id']}", headers={"Prefer": "wait=600"}) as answer:
        assert answer.headers["Preference-Applied"] == "wait=60"


async def test_a_wrong_wait_is_named(api: Api) -> None:
    for wait in ("-1", "61", "soon", "nan", "inf", "", "%C2%B2"):
        async with api.http.get(f"/api/tasks/{uuid4()}?wait={wait}") as answer:
            document = await problem(answer)
        assert (answer.status, document["errors"][0]["pointer"]) == (400, "/wait")


async def test_a_parameter_that_nobody_knows_is_named(api: Api) -> None:
    async with api.http.get(f"/api/tasks/{(await api.create())['id']}?wiat=30") as answer:
        document = await problem(answer)
    assert (answer.status, document["error"]) == (400, "wiat is not a parameter of this path: it takes wait")


async def test_the_hub_wakes_who_waits_for_a_finished_or_deleted_task_and_nobody_else(api: Api) -> None:
    hub = Hub(api.store)
    done, gone, live = [UUID((await api.create())["id"]) for _ in range(3)]
    waits = [asyncio.ensure_future(hub.wait(key, 30)) for key in (done, done, gone, live)]
    await asyncio.sleep(0)
    await hub.run_once()
    assert not any(wait.done() for wait in waits)
    await api.finish(str(done))
    await api.sql("delete from tasks where id = %s", gone)
    await hub.run_once()
    await asyncio.wait(waits[:3])
    assert not waits[3].done()
    hub.close()
    await waits[3]
    await hub.wait(live, 30)


async def test_cancel_a_pending_task_retry_it_and_run_it(api: Api) -> None:
    task = await api.create(delay=3600)
    path = f"/api/tasks/{task['id']}"
    async with api.http.post(f"{path}/cancel") as answer:
        found = await answer.json()
        assert (answer.status, found["status"], found["id"]) == (200, "CANCELLED", task["id"])
    for verb, reason in [("cancel", "CANCELLED"), ("run", "CANCELLED")]:
        async with api.http.post(f"{path}/{verb}") as answer:
            document = await problem(answer)
            assert (answer.status, document["code"]) == (409, "conflict")
            assert reason in document["detail"]
    async with api.http.post(f"{path}/retry") as answer:
        found = await answer.json()
        assert (answer.status, found["status"], found["finished_at"], found["attempt"]) == (200, "PENDING", None, 0)
    async with api.http.post(f"{path}/retry") as answer:
        assert answer.status == 409
        assert "PENDING" in (await problem(answer))["error"]


async def test_run_makes_a_task_due_now(api: Api) -> None:
    task = await api.create(delay=3600)
    async with api.http.post(f"/api/tasks/{task['id']}/run") as answer:
        found = await answer.json()
    assert (answer.status, found["status"]) == (200, "PENDING")
    assert found["run_at"] < task["run_at"]


async def test_cancel_of_a_held_task_is_202_until_its_worker_obeys(api: Api) -> None:
    task = await api.create()
    await api.hold(task["id"])
    for _ in range(2):
        async with api.http.post(f"/api/tasks/{task['id']}/cancel") as answer:
            found = await answer.json()
            assert (answer.status, found["status"]) == (202, "RUNNING")
            assert found["cancel_requested_at"] is not None
    async with api.http.post(f"/api/tasks/{task['id']}/run") as answer:
        assert answer.status == 409


async def test_stats_count_by_status(api: Api) -> None:
    tasks = [await api.create() for _ in range(3)]
    await api.hold(tasks[0]["id"])
    async with api.http.post(f"/api/tasks/{tasks[1]['id']}/cancel") as answer:
        assert answer.status == 200

    async def counted() -> bool:
        async with api.http.get("/api/stats") as answer:
            found = (await answer.json())["tasks"]
        return bool(found == {"PENDING": 1, "QUEUED": 0, "RUNNING": 1, "COMPLETED": 0, "FAILED": 0, "CANCELLED": 1})

    await until(counted)
