"""GET /api/tasks: filters, pages, and wrong parameters by name."""

from typing import Any

from api.door import Api, problem
from yarl import URL


async def page(api: Api, query: str) -> dict[str, Any]:
    async with api.http.get(f"/api/tasks{query}") as answer:
        assert answer.status == 200, await answer.text()
        return dict(await answer.json())


async def test_nothing_is_an_empty_page(api: Api) -> None:
    assert await page(api, "") == {"items": [], "next_cursor": None}


async def test_pages_are_newest_first_and_new_tasks_do_not_shift_them(api: Api) -> None:
    ids = [(await api.create(tags=["a+b"]))["id"] for _ in range(7)]
    seen: list[str] = []
    url = "/api/tasks?limit=3&tag=a%2Bb&status=PENDING"
    while url:
        async with api.http.get(url) as answer:
            found = await answer.json()
            seen += [task["id"] for task in found["items"]]
            link = answer.links.get("next")
            url = URL(link["url"]).raw_path_qs if link else ""
            assert (found["next_cursor"] is None) == (not url)
        await api.create(tags=["a+b"])
    assert seen == sorted(ids, reverse=True)


async def test_a_full_last_page_has_no_next(api: Api) -> None:
    for _ in range(2):
        await api.create()
    assert (await page(api, "?limit=2"))["next_cursor"] is None


async def test_filters(api: Api) -> None:
    a = await api.create(task_type="a", queue="q1", tags=["red", "big"])
    b = await api.create(task_type="b", queue="q1", tags=["red"])
    c = await api.create(task_type="b", queue="q 2")
    await api.finish(a["id"])
    await api.finish(b["id"], "FAILED", error="boom")
    wanted = {
        "?status=COMPLETED": [a],
        "?status=COMPLETED,FAILED": [b, a],
        "?status=COMPLETED&status=PENDING": [c, a],
        "?task_type=b": [c, b],
        "?queue=q1": [b, a],
        "?queue=q+2": [c],
        "?tag=red": [b, a],
        "?tag=big&queue=q1&status=COMPLETED": [a],
        f"?created_after={a['created_at']}": [c, b],
        f"?created_before={c['created_at']}": [b, a],
        f"?created_after={a['created_at']}&created_before={c['created_at']}": [b],
        "?created_after=2020-01-01T00:00:00%2B02:00&limit=1": [c],
        "?task_type=%27%20or%20true%20--": [],
    }
    found = {query: [task["id"] for task in (await page(api, query))["items"]] for query in wanted}
    assert found == {query: [task["id"] for task in tasks] for query, tasks in wanted.items()}


WRONG = {
    "status=DONE": "status",
    "status=": "status",
    "status=PENDING,,": "status",
    "limit=0": "limit",
    "limit=501": "limit",
    "limit=-1": "limit",
    "limit=%C2%B2": "limit",
    "limit=1&limit=2": "limit",
    "cursor=x": "cursor",
    "cursor=!!!!": "cursor",
    "cursor=": "cursor",
    "created_after=yesterday": "created_after",
    "created_before=2026-02-20T10:00:00+02:00": "created_before",
    "task_type=": "task_type",
    "task_type=%00": "task_type",
    "queue=" + "x" * 201: "queue",
    "tag=%00": "tag",
    "state=PENDING": "state",
}


async def test_a_wrong_parameter_is_named(api: Api) -> None:
    found = {}
    for query in WRONG:
        async with api.http.get(f"/api/tasks?{query}") as answer:
            document = await problem(answer)
        assert (answer.status, document["code"]) == (400, "invalid_parameter"), query
        found[query] = document["errors"][0]["pointer"].removeprefix("/")
        assert document["error"].startswith(found[query])
    assert found == WRONG


async def test_broken_utf8_in_a_query_breaks_nothing(api: Api) -> None:
    for query in ("task_type=%FF", "queue=%ED%A0%80", "tag=%ED%A0%80", "%FF=1", "%ED%A0%80=1"):
        async with api.http.get(URL(f"/api/tasks?{query}", encoded=True)) as answer:
            assert answer.status in (200, 400)


async def test_what_fits_is_counted_as_far_as_anyone_reads(api: Api) -> None:
    async def counted(query: str) -> dict[str, Any]:
        async with api.http.get(f"/api/tasks/count{query}") as answer:
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())

    done, *_ = [await api.create(queue=queue) for queue in ("q", "q", "p")]
    await api.finish(done["id"])
    assert await counted("") == {"count": 3, "complete": True}
    assert await counted("?queue=q&status=PENDING") == {"count": 1, "complete": True}
    await api.sql("insert into tasks_live (task_type, queue, payload) select 'x', 'many', '{}' from generate_series(1, 10001)")
    assert await counted("?queue=many") == {"count": 10_000, "complete": False}
    async with api.http.get("/api/tasks/count?limit=5") as answer:
        assert (await problem(answer))["detail"].startswith("limit is not a parameter")
