"""``GET /metrics`` of an API."""

import psycopg
import pytest
from api.door import Api, until
from prometheus_client.parser import text_string_to_metric_families


async def scrape(api: Api) -> dict[str, dict[tuple[str, ...], float]]:
    async with api.http.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = await answer.text()
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


async def test_gauges_say_what_is_in_the_database(api: Api) -> None:
    await api.make_leaves()
    task = await api.create(task_type="held")
    await api.hold(task["id"])
    await api.create(delay=600)
    await api.create(queue="q")
    await api.sql("update tasks_live set run_at = now() - interval '50 seconds', created_at = run_at - interval '6 days' where queue = 'q'")
    async with api.http.post("/api/queues/q/pause") as answer:
        assert answer.status == 200

    async def there() -> bool:
        found = await scrape(api)
        return found["taskrunner_tasks"].get(("q", "ready", "x")) == 1 and ("queue", "q") in {
            key[::-1] for key in found["taskrunner_paused"]
        }

    await until(there)
    found = await scrape(api)
    assert found["taskrunner_tasks"]["default", "scheduled", "x"] == 1
    assert found["taskrunner_tasks"]["default", "running", "held"] == 1
    assert 50 <= found["taskrunner_tasks_oldest_ready_age_seconds"]["q", "x"] < 110
    assert found["taskrunner_worker_sessions"] == {("live",): 1}
    assert found["taskrunner_database_up"] == {(): 1}
    assert found["taskrunner_database_leaf_days_ahead"] == {(): 7}
    assert found["taskrunner_database_table_bytes"]["tasks_live",] > 0


async def test_an_old_transaction_is_seen(api: Api) -> None:
    async with await psycopg.AsyncConnection.connect(api.dsn) as other:
        await other.execute("set transaction isolation level repeatable read")
        await other.execute("select 1, pg_sleep(0.2)")

        async def seen() -> bool:
            return (await scrape(api))["taskrunner_database_oldest_transaction_age_seconds"][()] > 0.2

        await until(seen)


async def test_requests_are_counted_by_route_and_status_and_never_by_path(api: Api) -> None:
    task = await api.create()
    for path, status in ((f"/api/tasks/{task['id']}", 200), ("/api/tasks/no", 400), ("/api/nothing/there", 404)):
        async with api.http.get(path) as answer:
            assert answer.status == status
    counts = (await scrape(api))["taskrunner_http_request_duration_seconds_count"]
    assert counts["GET", "/api/tasks/{id}", "200"] == counts["GET", "/api/tasks/{id}", "400"] == counts["POST", "/api/tasks", "201"] == 1
    assert not [words for words in counts if task["id"] in words[1] or "nothing" in words[1]]


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=1.0.0", "text/plain"])
async def test_the_scraper_has_its_format(api: Api, accept: str) -> None:
    async with api.http.get("/metrics", headers={"Accept": accept}) as answer:
        assert answer.headers["Content-Type"].partition(";")[0] == accept.partition(";")[0]
