"""Counts over time and by error, over HTTP."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from api.door import Api, until

from taskrunner.api.kept import Kept

COUNTS = {"created", "completed", "failed", "cancelled", "retried", "start_p50", "start_p95", "start_p99"}


async def get(api: Api, path: str, expected: int = 200, **query: str) -> dict[str, Any]:
    async with api.http.get(path, params=query) as answer:
        assert answer.status == expected, await answer.text()
        return dict(await answer.json())


async def fail(api: Api, error: str, **fields: Any) -> str:
    """A task that failed, counted as a scheduler would."""
    task = (await api.create(**fields))["id"]
    await api.finish(task, "FAILED", error=error)
    await api.sql(
        "insert into failures (hour, task_type, message, n, last_at, example)"
        " select date_trunc('hour', finished_at), task_type, taskrunner_error_group(error), 1, finished_at, id from tasks where id = %s",
        task,
    )
    return str(task)


async def test_points_begin_at_whole_steps_and_end_now(api: Api) -> None:
    found = await get(api, "/api/stats", window="3600", step="300")
    assert (found["window"], found["step"], len(found["points"])) == (3600, 300, 12)
    times = [datetime.fromisoformat(point["at"]) for point in found["points"]]
    assert {later - before for before, later in pairwise(times)} == {timedelta(minutes=5)}
    assert times[0].minute % 5 == times[0].second == times[0].microsecond == 0
    (now,) = await api.sql("select clock_timestamp()")
    assert timedelta(0) <= now[0] - times[-1] < timedelta(minutes=6)
    assert all(point.keys() == COUNTS | {"at"} for point in found["points"])
    assert found["totals"].keys() == COUNTS


async def test_what_happened_stands_in_its_point_and_in_the_totals(api: Api) -> None:
    minute = "date_trunc('minute', now())"
    ago = f"{minute} - interval '5 minutes'"
    await api.sql(
        "insert into minutes (minute, queue, task_type, measure, bucket, n) values"
        f" ({ago}, 'q', 't', 'start', 3, 10), ({minute}, 'q', 't', 'created', 0, 4), ({minute}, 'q', 't', 'retried', 0, 2)"
    )
    await api.sql(
        "insert into tally (minute, queue, task_type, outcome, n) values"
        f" ({ago}, 'q', 't', 'COMPLETED', 3), ({ago} - interval '2 hours', 'q', 't', 'COMPLETED', 70), ({minute}, 'q', 'u', 'FAILED', 1)"
    )
    found = await get(api, "/api/stats")
    assert {name: found["totals"][name] for name in ("created", "completed", "failed", "cancelled", "retried")} == {
        "created": 4,
        "completed": 3,
        "failed": 1,
        "cancelled": 0,
        "retried": 2,
    }
    assert sum(point["created"] for point in found["points"][-2:]) == 4
    (point,) = [point for point in found["points"] if point["completed"]]
    assert 0.002 <= point["start_p50"] <= point["start_p95"] <= point["start_p99"] <= 0.005
    assert found["points"][0]["start_p50"] is None
    assert (await get(api, "/api/stats", window="10800"))["totals"]["completed"] == 73
    assert (await get(api, "/api/stats", task_type="u"))["totals"]["failed"] == 1
    assert (await get(api, "/api/stats", task_type="u"))["tasks"]["FAILED"] == 1
    assert (await get(api, "/api/stats", queue="other"))["totals"]["completed"] == 0


async def test_now_is_what_is_live(api: Api) -> None:
    held = await api.create()
    await api.hold(held["id"])
    await api.create()
    await api.sql("update tasks_live set run_at = '2020-01-01', created_at = now() - interval '100 seconds' where status = 'PENDING'")
    await api.create(queue="later", delay=600)

    async def there() -> bool:
        found = await get(api, "/api/stats")
        now = found["now"]
        late = now.pop("oldest_ready_age")
        return bool(now == {"ready": 1, "scheduled": 1, "running": 1} and 99 < late < 160)

    await until(there)
    assert (await get(api, "/api/stats", queue="later"))["now"] == {"ready": 0, "scheduled": 1, "running": 0, "oldest_ready_age": None}


async def test_creates_are_counted_however_they_come(api: Api) -> None:
    await api.create()
    async with api.http.post("/api/tasks", json={"task_type": "x", "unique_key": "k"}) as answer:
        assert answer.status == 201
    async with api.http.post("/api/tasks", json={"task_type": "x", "unique_key": "k"}) as answer:
        assert answer.status == 200  # there already
    async with api.http.post("/api/tasks/batch", json=[{"task_type": "x"}] * 10) as answer:
        assert answer.status == 201
    lines = b'{"task_type": "x"}\n' * 100
    async with api.http.post("/api/tasks/batch", data=lines, headers={"Content-Type": "application/x-ndjson"}) as answer:
        assert answer.status == 201
        await answer.read()
    await api.store.minutes.flush()
    assert (await get(api, "/api/stats", task_type="x"))["totals"]["created"] == 112


async def test_more_than_a_day_is_shown_by_the_hour(api: Api) -> None:
    for query, step, n in (
        ({"window": "86400", "step": "60"}, 60, 1440),
        ({"window": "90000"}, 3600, 25),
        ({"window": "172800", "step": "5400"}, 7200, 24),
    ):
        found = await get(api, "/api/stats", 200, **query)
        assert (found["step"], len(found["points"])) == (step, n)


async def test_wrong_parameters_are_named(api: Api) -> None:
    wrong: list[tuple[dict[str, str], str]] = [
        ({"window": "59"}, "window"),
        ({"window": "9999999"}, "window"),
        ({"step": "90"}, "step"),
        ({"task_type": ""}, "task_type"),
        ({"queue": ""}, "queue"),
        ({"speed": "1"}, "speed"),
    ]
    for query, name in wrong:
        assert (await get(api, "/api/stats", 400, **query))["detail"].startswith(f"{name} ")


async def test_errors_are_grouped_and_their_tasks_found_and_retried(api: Api) -> None:
    ids = [await fail(api, f"no order {n}", task_type="mail") for n in (17, 18, 19)]
    other = await fail(api, "no disk", task_type="mail")
    items = (await get(api, "/api/errors"))["items"]
    assert [(item["task_type"], item["message"], item["count"]) for item in items] == [("mail", "no order #", 3), ("mail", "no disk", 1)]
    assert items[0]["example_id"] == ids[-1]
    assert (await get(api, "/api/errors", task_type="other"))["items"] == []
    which = {"status": "FAILED", "task_type": "mail", "error": "no order #"}
    assert {task["id"] for task in (await get(api, "/api/tasks", 200, **which))["items"]} == set(ids)
    async with api.http.post("/api/tasks/bulk/retry", json={"task_type": "mail", "error": "no order #"}) as answer:
        assert answer.status == 202
        operation = await answer.json()

    async def over() -> bool:
        return bool((await get(api, f"/api/bulk/{operation['id']}"))["done"] == 3)

    await until(over)
    assert [item["message"] for item in (await get(api, "/api/errors"))["items"]] == ["no disk"]
    assert (await get(api, f"/api/tasks/{other}"))["status"] == "FAILED"


async def test_an_answer_is_kept_for_as_long_as_it_is_worth() -> None:
    asked = []

    async def ask() -> int:
        asked.append(1)
        return len(asked)

    kept = Kept(ask)
    assert await kept.get() == 1
    kept._until += 3600
    assert await kept.get() == 1
    kept._until = 0.0
    assert await kept.get() == 2
