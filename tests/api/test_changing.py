"""Changing and deleting one task: merge patches, entity tags, and the states that forbid it."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from api.door import Api, problem
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.api.changing import merge_patch


async def patched(api: Api, task: str, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    async with api.http.patch(
        f"/api/tasks/{task}", json=body, headers={"Content-Type": "application/merge-patch+json", **headers}
    ) as answer:
        return answer.status, dict(await answer.json())


async def tag_of(api: Api, task: str) -> str:
    async with api.http.get(f"/api/tasks/{task}") as answer:
        return answer.headers["ETag"]


async def test_every_field_may_be_changed_and_the_others_stay(api: Api) -> None:
    before = await api.create(delay=3600, payload={"a": 1, "b": {"c": 2, "d": 3}}, tags=["x"], max_attempts=3, timeout=9)
    changes: dict[str, tuple[Any, Any]] = {
        "priority": (1, 1),
        "payload": ({"b": {"c": None, "e": [1]}, "f": "g"}, {"a": 1, "b": {"d": 3, "e": [1]}, "f": "g"}),
        "max_attempts": (7, 7),
        "timeout": (1.5, 1.5),
        "tags": (["y", "z"], ["y", "z"]),
        "run_at": ("2030-01-01T00:00:00+01:00", "2029-12-31T23:00:00.000000Z"),
    }
    task = before
    for name, (sent, shown) in changes.items():
        status, after = await patched(api, task["id"], {name: sent})
        assert (status, after[name]) == (200, shown)
        assert {key for key in after if after[key] != task[key]} == {name, "updated_at"}
        task = after
    assert (await patched(api, task["id"], {"max_attempts": None, "timeout": None, "payload": None}))[1]["payload"] == {}
    status, after = await patched(api, task["id"], {"delay": 60})
    assert after["max_attempts"] is after["timeout"] is None
    assert before["created_at"] < after["run_at"] < "2029"
    assert await patched(api, task["id"], {}) == (200, after)


async def test_no_patch_moves_a_task_behind_its_own_expiry(api: Api) -> None:
    task = await api.create(delay=3600, expires_at="2100-01-01T00:00:00Z")
    for body, pointer in [({"run_at": "2100-01-01T01:00:00+01:00"}, "/run_at"), ({"delay": 3_000_000_000}, "/delay")]:
        status, document = await patched(api, task["id"], body)
        assert (status, document["errors"][0]["pointer"]) == (422, pointer)
    assert (await patched(api, task["id"], {"run_at": "2099-12-31T23:59:59Z"}))[0] == 200
    assert (await patched(api, task["id"], {"priority": 1}))[0] == 200
    await api.sql("update tasks_live set attempt = 1")
    assert (await patched(api, task["id"], {"delay": 3_000_000_000}))[0] == 200, "one that has started once does not expire"
    await api.sql("update tasks_live set attempt = 0, updated_at = now()")
    assert (await patched(api, task["id"], {"priority": 3}))[0] == 200, "its time is not what is changed"


async def test_a_task_that_becomes_due_by_a_patch_is_hinted_at(api: Api) -> None:
    heard = []
    api.store.hints.subscribe(heard.append)
    task = await api.create(delay=3600)
    while not heard:
        await asyncio.sleep(0.01)
    heard.clear()
    await patched(api, task["id"], {"run_at": None, "priority": 1})
    while not heard:
        await asyncio.sleep(0.01)
    assert [lane.priority for lane in heard[0].lanes] == [1]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"priority": 5}, "/priority"),
        ({"queue": "other"}, "/queue"),
        ({"run_at": "2030-01-01T00:00:00Z", "delay": 1}, "/delay"),
        ({"tags": "x"}, "/tags"),
        ({"timeout": 0}, "/timeout"),
        ([], ""),
    ],
)
async def test_a_wrong_patch_is_named(api: Api, body: Any, pointer: str) -> None:
    task = await api.create(delay=3600)
    async with api.http.patch(f"/api/tasks/{task['id']}", json=body) as answer:
        document = await problem(answer)
        assert (answer.status, document["code"], document["errors"][0]["pointer"]) == (422, "invalid_task", pointer)


async def test_a_payload_may_not_grow_beyond_its_size_by_patches(api: Api) -> None:
    task = await api.create(delay=3600, payload={"a": "x" * 200_000})
    async with api.http.patch(f"/api/tasks/{task['id']}", json={"payload": {"b": "x" * 200_000}}) as answer:
        assert (answer.status, (await problem(answer))["code"]) == (413, "too_large")


async def test_what_does_not_wait_cannot_be_changed_and_what_lives_not_be_deleted(api: Api) -> None:
    held, finished = await api.create(), await api.create()
    await api.hold(held["id"])
    await api.finish(finished["id"])
    for task, word in ((held, "RUNNING"), (finished, "COMPLETED")):
        async with api.http.patch(f"/api/tasks/{task['id']}", json={"priority": 1}) as answer:
            assert answer.status == 409
            assert word in (await problem(answer))["error"]
    async with api.http.delete(f"/api/tasks/{held['id']}") as answer:
        assert (answer.status, (await problem(answer))["code"]) == (409, "conflict")


async def test_delete_takes_the_task_its_attempts_and_its_count(api: Api) -> None:
    task = await api.create()
    async with api.http.post(f"/api/tasks/{task['id']}/cancel") as answer:
        assert answer.status == 200
    await api.sql("insert into attempts (task_id, epoch, attempt, outcome) values (%s, 1, 1, 'ERROR')", task["id"])
    for status in (204, 404):
        async with api.http.delete(f"/api/tasks/{task['id']}") as answer:
            assert answer.status == status
    assert await api.sql("select 1 from attempts") == []
    async with api.http.get("/api/stats") as answer:
        assert set((await answer.json())["tasks"].values()) == {0}


async def test_if_match_changes_the_task_as_it_is_known_or_nothing(api: Api) -> None:
    task = await api.create(delay=3600)
    old = await tag_of(api, task["id"])
    assert old == await tag_of(api, task["id"])
    assert (await patched(api, task["id"], {"priority": 1}, **{"If-Match": f'"other", {old}'}))[0] == 200
    new = await tag_of(api, task["id"])
    assert new != old
    for method in ("PATCH", "DELETE"):
        async with api.http.request(method, f"/api/tasks/{task['id']}", json={"priority": 2}, headers={"If-Match": old}) as answer:
            assert (answer.status, (await problem(answer))["code"], answer.headers["ETag"]) == (412, "precondition_failed", new)
    assert (await patched(api, task["id"], {"priority": 3}, **{"If-Match": "*"}))[0] == 200
    async with api.http.post(f"/api/tasks/{task['id']}/cancel") as answer:
        tag = answer.headers["ETag"]
    async with api.http.delete(f"/api/tasks/{task['id']}", headers={"If-Match": tag}) as answer:
        assert answer.status == 204


async def test_patches_at_the_same_time_lose_nothing(api: Api) -> None:
    task = await api.create(delay=3600)

    async def add(number: int) -> int:
        while (status := (await patched(api, task["id"], {"payload": {f"n{number}": number}}))[0]) == 409:
            pass
        return status

    async with asyncio.TaskGroup() as group:
        adds = [group.create_task(add(number)) for number in range(8)]
    assert {one.result() for one in adds} == {200}
    async with api.http.get(f"/api/tasks/{task['id']}") as answer:
        assert (await answer.json())["payload"] == {f"n{number}": number for number in range(8)}


async def test_unknown_tasks_are_404(api: Api) -> None:
    for method in ("PATCH", "DELETE"):
        async with api.http.request(method, f"/api/tasks/{uuid4()}", json={"priority": 1}) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (404, "not_found")


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text("abc", max_size=1), inner, max_size=3)
)


@given(target=JSON, patch=JSON)
def test_a_merge_patch_leaves_no_null_behind_that_was_not_there_and_holds_when_it_is_repeated(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    if not isinstance(patch, dict):
        assert once == patch


@pytest.mark.parametrize(  # RFC 7396, appendix A
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_standard(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result
