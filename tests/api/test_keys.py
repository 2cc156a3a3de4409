"""Idempotency-Key and unique_key over HTTP; faults F09 (the answer is cut off) and F10 (the same key many times at once)."""

import asyncio
from typing import Any

import aiohttp
import psycopg
import pytest
from aiohttp import ClientSession
from api.door import Api, problem
from faults.proxy import proxy

KEY = "Idempotency-Key"


async def post(api: Api, key: str | None = None, path: str = "/api/tasks", **fields: Any) -> tuple[int, dict[str, Any], Any]:
    """Status, document and headers."""
    body: Any = {"task_type": "x", **fields}
    if path.endswith("batch"):
        body = [body]
    async with api.http.post(path, json=body, headers={KEY: key} if key else {}) as answer:
        return answer.status, await answer.json(), answer.headers


async def count(api: Api) -> int:
    return int((await api.sql("select count(*) from tasks"))[0][0])


async def test_the_same_request_gets_the_first_answer_again(api: Api) -> None:
    status, first, headers = await post(api, "k", tags=["a"], metadata={"b": 1}, delay=3600)
    assert (status, headers.get("Idempotent-Replayed")) == (201, None)
    await api.sql("delete from tasks_live")
    for key in ("k", '"k"'):
        status, again, headers = await post(api, key, tags=["a"], metadata={"b": 1}, delay=3600)
        assert (status, again, headers["Idempotent-Replayed"]) == (201, first, "true")
        assert headers["Location"] == f"/api/tasks/{first['id']}"
    assert await count(api) == 0


async def test_the_order_of_members_does_not_matter_and_the_body_does(api: Api) -> None:
    await post(api, "k", queue="a", payload={"x": 1, "y": 2})
    async with api.http.post("/api/tasks", data='{"payload":{"y":2,"x":1}, "queue":"a","task_type":"x"}', headers={KEY: "k"}) as answer:
        assert answer.status == 201
    async with api.http.post("/api/tasks", json={"task_type": "y"}, headers={KEY: "k"}) as answer:
        assert answer.status == 422
        assert (await problem(answer))["code"] == "idempotency_key_reused"
    assert await count(api) == 1


async def test_a_batch_has_keys_of_its_own(api: Api) -> None:
    _, single, _ = await post(api, "k")
    status, first, _ = await post(api, "k", "/api/tasks/batch")
    assert status == 201
    assert first["items"][0]["id"] != single["id"]
    status, again, headers = await post(api, "k", "/api/tasks/batch")
    assert (status, again, headers["Idempotent-Replayed"]) == (201, first, "true")
    assert (await post(api, "k", "/api/tasks/batch", queue="other"))[0] == 422
    assert await count(api) == 2


async def test_no_postpone_moves_a_task_behind_its_own_expiry(api: Api) -> None:
    _, first, _ = await post(api, unique_key="u", expires_at="2100-01-01T00:00:00Z")
    late = {"unique_key": "u", "on_conflict": "postpone", "run_at": "2100-01-01T00:00:00Z"}
    status, refused, _ = await post(api, **late)
    assert (status, refused["code"]) == (409, "conflict")
    assert f"{first['id']} has this unique_key and expires before" in refused["error"]
    await api.sql("update tasks_live set attempt = 1")
    assert (await post(api, **late))[1]["run_at"] == "2100-01-01T00:00:00.000000Z", "one that has started once does not expire"


@pytest.mark.parametrize("key", ["", '"', '""', "a b", 'a"b', "ü", "x" * 256, '"a', '"\\x"'])
async def test_a_key_that_is_none_is_refused(api: Api, key: str) -> None:
    async with api.http.post("/api/tasks", json={"task_type": "x"}, headers={KEY: key}) as answer:
        assert answer.status == 400
        assert KEY in (await problem(answer))["error"]
    assert await count(api) == 0


async def test_a_refused_body_takes_no_key(api: Api) -> None:
    assert (await post(api, "k", priority=9))[0] == 422
    assert (await post(api, "k", timeout=1e-300))[0] == 422
    assert (await post(api, "k"))[0] == 201


async def test_fifty_at_once_make_one_task_and_get_one_answer(api: Api) -> None:
    """F10."""
    async with asyncio.TaskGroup() as group:
        asks = [group.create_task(post(api, "k")) for _ in range(50)]
    assert {ask.result()[0] for ask in asks} == {201}
    assert len({str(ask.result()[1]) for ask in asks}) == 1
    assert sum("Idempotent-Replayed" not in ask.result()[2] for ask in asks) == 1
    assert await count(api) == 1
    assert (await post(api, "k", queue="other"))[0] == 422


async def test_answers_that_are_cut_off_make_no_second_task(api: Api) -> None:
    """F09: the client never learns whether its request was heard, and sends it again, 200 times."""
    port = api.http._base_url.port  # type: ignore[union-attr]  # the door's
    broken = 0
    async with proxy(int(port or 0)) as cut, ClientSession(f"http://127.0.0.1:{cut.port}") as http:
        for n in range(200):
            cut.cut_after = n % 150
            try:
                async with http.post("/api/tasks", json={"task_type": "x"}, headers={KEY: "k"}) as answer:
                    await answer.read()
            except aiohttp.ClientError:
                broken += 1
        cut.cut_after = None
        async with http.post("/api/tasks", json={"task_type": "x"}, headers={KEY: "k"}) as answer:
            assert answer.status == 201
            found = await answer.json()
    assert broken >= 150
    assert await api.sql("select id::text from tasks") == [(found["id"],)]


async def test_who_waits_too_long_for_the_first_answer_is_told(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.store.keyed.PATIENCE", "set local lock_timeout = '0.3s'")
    async with await psycopg.AsyncConnection.connect(api.dsn) as first:
        await first.execute("insert into idempotency_keys (key, fingerprint) values ('POST /api/tasks k', '')")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(post(api, "k"))
            assert (await post(api, "other"))[0] == 201
            assert (await post(api, unique_key="u"))[0] == 201
        status, document, headers = waiting.result()
    assert (status, document["code"], headers["Retry-After"]) == (409, "in_flight", "1")


async def test_of_two_with_one_key_in_an_array_the_second_is_told_of_the_first(api: Api) -> None:
    pair = [{"task_type": "x", "unique_key": "u"}, {"task_type": "x", "unique_key": "u", "on_conflict": "reject"}]
    async with api.http.post("/api/tasks/batch", json=pair) as answer:
        document = await problem(answer)
    assert (answer.status, document["error"]) == (409, "/1: the task at /0 has this unique_key")
    assert await count(api) == 0


async def test_a_second_task_with_a_live_unique_key(api: Api) -> None:
    status, first, _ = await post(api, unique_key="u", payload=1)
    assert status == 201
    status, second, headers = await post(api, unique_key="u", payload=2)
    assert (status, second, headers["Location"]) == (200, {**first, "deduplicated": True}, f"/api/tasks/{first['id']}")
    status, refused, _ = await post(api, unique_key="u", on_conflict="reject")
    assert (status, refused["code"], first["id"] in refused["error"]) == (409, "conflict", True)
    status, replaced, _ = await post(api, unique_key="u", on_conflict="replace", payload=3, priority=1)
    assert (status, replaced["id"], replaced["payload"], replaced["priority"]) == (200, first["id"], 3, 1)
    status, later, _ = await post(api, unique_key="u", on_conflict="postpone", delay=60)
    assert (status, later["payload"], later["run_at"] > replaced["run_at"]) == (200, 3, True)
    await api.hold(first["id"])
    status, refused, _ = await post(api, unique_key="u", on_conflict="replace")
    assert (status, first["id"] in refused["error"]) == (409, True)


async def test_a_batch_with_unique_keys_is_all_or_nothing(api: Api) -> None:
    _, first, _ = await post(api, unique_key="u")
    tasks = [{"task_type": "x", "unique_key": key} for key in ("a", "u", "a")]
    async with api.http.post("/api/tasks/batch", json=tasks) as answer:
        items = (await answer.json())["items"]
    assert [item.get("deduplicated", False) for item in items] == [False, True, True]
    assert (items[1]["id"], items[2]["id"]) == (first["id"], items[0]["id"])
    async with api.http.post("/api/tasks/batch", json=[{"task_type": "x"}, {**tasks[1], "on_conflict": "reject"}]) as answer:
        assert answer.status == 409
        assert (await problem(answer))["error"].startswith("/1: ")
    assert await count(api) == 2


FIELDS = {
    "unique_key": "ü" * 500,
    "expires_at": "2040-02-20T10:00:00.000000Z",
    "backoff": {"kind": "linear", "base": 2.5, "cap": 60.0},
    "metadata": {"order": [1, None]},
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "callback_url": "https://example.com:8443/hook?a=b",
}


async def test_every_field_comes_back_as_it_was_sent(api: Api) -> None:
    for fields in (FIELDS, {"backoff": {"kind": "exponential", "base": 1.0}, "metadata": {}}):
        created = await api.create(**fields)
        assert {name: created[name] for name in fields} == fields
        async with api.http.get(f"/api/tasks/{created['id']}") as answer:
            read = await answer.json()
        assert {name: read[name] for name in created} == created


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"unique_key": ""}, "/unique_key"),
        ({"unique_key": "ü" * 501}, "/unique_key"),
        ({"unique_key": "u", "on_conflict": "merge"}, "/on_conflict"),
        ({"on_conflict": "reject"}, "/on_conflict"),
        ({"expires_at": "2040-02-20"}, "/expires_at"),
        ({"expires_at": "2040-02-20T10:00:00Z", "run_at": "2040-02-20T10:00:00Z"}, "/expires_at"),
        ({"backoff": 3}, "/backoff"),
        ({"backoff": {"kind": "cubic"}}, "/backoff/kind"),
        ({"backoff": {"base": 0}}, "/backoff/base"),
        ({"backoff": {"pace": 1}}, "/backoff/pace"),
        ({"metadata": []}, "/metadata"),
        ({"metadata": {"a": "x" * 16_384}}, "/metadata"),
        ({"traceparent": "00-0"}, "/traceparent"),
        ({"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"}, "/traceparent"),
        ({"callback_url": "/hook"}, "/callback_url"),
        ({"callback_url": "ftp://example.com"}, "/callback_url"),
        ({"callback_url": "https://me:secret@example.com"}, "/callback_url"),
        ({"callback_url": "http://exa mple.com"}, "/callback_url"),
        ({"callback_url": "https://example.com/" + "x" * 2_000}, "/callback_url"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, fields: dict[str, Any], pointer: str) -> None:
    async with api.http.post("/api/tasks", json={"task_type": "x", **fields}) as answer:
        assert answer.status == 422
        assert pointer in [fault["pointer"] for fault in (await problem(answer))["errors"]]
    assert await count(api) == 0
