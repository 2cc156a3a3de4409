"""POST /api/tasks and /api/tasks/batch, over a socket, into PostgreSQL."""

import gzip
import io
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import orjson
from aiohttp import FormData
from api.door import Api, problem

MEMBERS = [
    *("id", "task_type", "queue", "priority", "payload", "status", "run_at", "attempt", "max_attempts", "timeout", "tags"),
    *("created_at", "updated_at", "finished_at", "cancel_requested_at", "result", "error"),
    "unique_key",
    "expires_at",
    "backoff",
    "metadata",
    "traceparent",
    "callback_url",
    "progress",
    "progress_message",
]


async def test_a_task_is_committed_when_its_201_arrives(api: Api) -> None:
    async with api.http.post("/api/tasks", data='{"task_type": "email", "payload": {"to": "ü", "n": [1, 2.5, null]}}') as answer:
        assert answer.status == 201
        task = await answer.json()
        assert answer.headers["Location"] == f"/api/tasks/{task['id']}"
    assert list(task) == MEMBERS
    assert await api.sql("select task_type, payload, status from tasks where id = %s", task["id"]) == [
        ("email", {"to": "ü", "n": [1, 2.5, None]}, "PENDING")
    ]
    async with api.http.get(f"/api/tasks/{task['id']}") as answer:
        again = await answer.json()
    assert list(again) == [*MEMBERS, "attempts"]
    assert again == {**task, "attempts": []}


async def test_every_field_is_kept(api: Api) -> None:
    fields = {
        "payload": None,
        "run_at": "2040-02-20T10:00:00+02:00",
        "queue": 'a "queue" \\ {}, 😀',
        "priority": 4,
        "max_attempts": 7,
        "timeout": 0.25,
        "tags": ["a", 'b"\\,{}', "ü"],
    }
    task = await api.create(**fields)
    assert task == {**task, **fields, "run_at": "2040-02-20T08:00:00.000000Z"}
    async with api.http.get(f"/api/tasks/{task['id']}") as answer:
        assert await answer.json() == {**task, "attempts": []}


async def test_delay_counts_from_the_clock_of_the_database(api: Api) -> None:
    task = await api.create(delay=90.5)
    created, due = datetime.fromisoformat(task["created_at"]), datetime.fromisoformat(task["run_at"])
    assert due - created == timedelta(seconds=90.5)


BAD_BODIES = {
    b'{"task_type":"x","payload":{"a":"\\u0000"}}': (400, "invalid_json", "/payload/a"),
    b'{"task_type":"x","payload":["\\ud800"]}': (400, "invalid_json", "/payload/0"),
    b'{"task_type":"x","payload":NaN}': (400, "invalid_json", "/payload"),
    b'{"task_type":"x","payload":1e400}': (400, "invalid_json", "/payload"),
    b'{"task_type":"x","payload":' + b"1" * 5000 + b"}": (400, "invalid_json", "/payload"),
    b'{"task_type":"x","task_type":"y"}': (400, "invalid_json", "/task_type"),
    b'{"task_type":"x","payload":"\xff"}': (400, "invalid_json", "/payload"),
    b'{"task_type":"x","\\ud800":1}': (400, "invalid_json", "/\\ud800"),
    b"": (400, "invalid_json", ""),
    b"task_type=x": (400, "invalid_json", ""),
    b'"x"': (422, "invalid_task", ""),
    b'{"task_type":"x","priority":9}': (422, "invalid_task", "/priority"),
    b'{"task_type":"x","when":"now"}': (422, "invalid_task", "/when"),
    b'{"task_type":"x","payload":"' + b"x" * 262_144 + b'"}': (413, "too_large", "/payload"),
    b'{"task_type":"x","payload":' + b"[" * 20_000 + b"]" * 20_000 + b"}": (400, "invalid_json", "/payload" + "/0" * 63),
}


async def test_a_bad_body_is_refused_by_name(api: Api) -> None:
    found = {}
    for body in BAD_BODIES:
        async with api.http.post("/api/tasks", data=body) as answer:
            document = await problem(answer)
            found[body] = (answer.status, document["code"], document["errors"][0]["pointer"])
    assert found == BAD_BODIES
    assert await api.sql("select count(*) from tasks") == [(0,)]


async def test_a_body_over_the_limit_is_413_whether_it_says_so_or_not(api: Api) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        for at in range(0, size, 65_536):
            yield b" " * min(65_536, size - at)

    for path, size in [("/api/tasks", (1 << 20) + 1), ("/api/tasks/batch", (8 << 20) + 1)]:
        for body in (io.BytesIO(b" " * size), pieces(size)):
            async with api.http.post(path, data=body) as answer:
                assert (answer.status, (await problem(answer))["code"]) == (413, "too_large")


async def test_a_compressed_body_is_never_inflated(api: Api) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    async with api.http.post("/api/tasks", data=bomb, headers={"Content-Encoding": "gzip"}) as answer:
        assert (await problem(answer))["code"] == "unsupported_encoding"
        assert answer.status == 415


async def test_any_content_type_but_a_multipart_form(api: Api) -> None:
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
        async with api.http.post("/api/tasks", data=b'{"task_type":"x"}', headers={"Content-Type": kind}) as answer:
            assert answer.status == 201
    form = FormData({"task_type": "x"}, default_to_multipart=True)
    async with api.http.post("/api/tasks", data=form) as answer:
        assert (await problem(answer))["code"] == "unsupported_media_type"
        assert answer.status == 415


async def test_the_page_of_another_site_may_not_create(api: Api) -> None:
    own = str(api.http._base_url).rstrip("/")
    for headers, status in [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://tasks.example", "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": own}, 201),
        ({}, 201),
    ]:
        async with api.http.post("/api/tasks", data=b'{"task_type":"x"}', headers=headers) as answer:
            assert answer.status == status, headers


async def test_a_batch_is_answered_in_its_order(api: Api) -> None:
    tasks = [{"task_type": "x", "payload": {"n": n}, "priority": n % 4 + 1, "delay": n} for n in range(1000)]
    async with api.http.post("/api/tasks/batch", json=tasks) as answer:
        assert answer.status == 201
        items = (await answer.json())["items"]
    assert {item["status"] for item in items} == {"PENDING"}
    rows = dict(await api.sql("select id::text, (payload->>'n')::int from tasks"))
    assert [rows[item["id"]] for item in items] == list(range(1000))
    assert await api.sql("select count(distinct xmin::text) from tasks_live") == [(1,)]


async def test_a_batch_of_ten_thousand(api: Api) -> None:
    body = orjson.dumps([{"task_type": "x", "payload": {"n": n, "text": "x" * 100}} for n in range(10_000)])
    async with api.http.post("/api/tasks/batch", data=io.BytesIO(body)) as answer:
        assert answer.status == 201
        assert len({item["id"] for item in (await answer.json())["items"]}) == 10_000
    async with api.http.post("/api/tasks/batch", data=io.BytesIO(body[:-1] + b',{"task_type":"x"}]')) as answer:
        assert answer.status == 413
    assert await api.sql("select count(*) from tasks") == [(10_000,)]


async def test_a_batch_is_all_or_nothing(api: Api) -> None:
    """A timeout of 1e-300 seconds is more than 0, but PostgreSQL's real cannot hold it: the database refuses it, not we."""
    for bad, status, pointer in [
        (b'{"task_type":"x","priority":0}', 422, "/3/priority"),
        (b'{"task_type":"x","payload":["\\u0000"]}', 400, "/3/payload/0"),
        (b'{"task_type":"x","timeout":1e-300}', 422, "/3"),
        (b"null", 422, "/3"),
    ]:
        body = b"[" + b'{"task_type":"x"},' * 3 + bad + b',{"task_type":"x"}]'
        async with api.http.post("/api/tasks/batch", data=body) as answer:
            document = await problem(answer)
        assert (answer.status, document["errors"][0]["pointer"]) == (status, pointer)
    assert await api.sql("select count(*) from tasks") == [(0,)]


async def test_every_fault_of_a_long_batch_is_named_by_its_place(api: Api) -> None:
    tasks: list[dict[str, object]] = [{"task_type": "x"} for _ in range(2_000)]
    tasks[700] = {"task_type": "x", "priority": 9}
    tasks[1_999] = {"payload": 1}
    async with api.http.post("/api/tasks/batch", json=tasks) as answer:
        assert answer.status == 422
        assert [fault["pointer"] for fault in (await problem(answer))["errors"]] == ["/700/priority", "/1999/task_type"]
    assert await api.sql("select count(*) from tasks") == [(0,)]
    del tasks[1_999]
    tasks[700] = {"task_type": "x", "unique_key": "u"}
    async with api.http.post("/api/tasks/batch", json=tasks) as answer:
        assert answer.status == 201
    assert await api.sql("select count(*), count(unique_key) from tasks") == [(1_999, 1)]


async def test_an_empty_batch_creates_nothing(api: Api) -> None:
    async with api.http.post("/api/tasks/batch", data=b"[]") as answer:
        assert (answer.status, await answer.json()) == (201, {"items": []})
