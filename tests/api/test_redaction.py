"""What is in a task is hidden from tokens that are not good for payloads; and what is being watched ends with its token."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import ClientResponse
from api.door import Api
from api.tokens import TOKENS, caller, closed

from taskrunner.api import access
from taskrunner.api.documents import CONTENTS
from taskrunner.domain.access import Scope
from taskrunner.store.tokens import Tokens

SECRET = {"marker": "hunter2"}


@pytest.fixture
async def shut(dsn: str) -> AsyncIterator[Api]:
    async with closed(dsn) as it:
        yield it


def hidden(task: dict[str, Any]) -> bool:
    return task.get("redacted") is True and all(task[name] is None for name in CONTENTS & task.keys())


async def test_who_may_not_see_payloads_sees_the_rest(shut: Api) -> None:
    async with AsyncExitStack() as stack:
        write, read, payloads = [
            await stack.enter_async_context(caller(shut, TOKENS[Scope(name)])) for name in ("write", "read", "payloads")
        ]
        fields = {"payload": SECRET, "metadata": SECRET, "callback_url": "http://x.example/hunter2", "tags": ["a"]}
        task = await write.create(**fields)
        assert "redacted" not in task
        await write.finish(task["id"], "FAILED", result=json.dumps(SECRET), error="hunter2")
        await write.sql("update tasks set progress_message = 'hunter2' where id = %s", task["id"])
        await write.sql("insert into attempts (task_id, epoch, attempt, outcome, error, traceback) values (%s, 1, 1, 'ERROR', %s, %s)",
                        task["id"], "hunter2", "hunter2")  # fmt: skip
        for path in (f"/api/tasks/{task['id']}", f"/api/tasks/{task['id']}?wait=1", "/api/tasks", "/api/tasks?status=FAILED&tag=a"):
            async with read.http.get(path) as answer:
                text = await answer.text()
                document = json.loads(text)
                (shown,) = document.get("items", [document])
                assert (shown["id"], shown["status"], shown["tags"]) == (task["id"], "FAILED", ["a"])
                assert hidden(shown)
                assert "hunter2" not in text
                assert [attempt["outcome"] for attempt in shown.get("attempts", [])] in ([], ["ERROR"])
            async with payloads.http.get(path) as answer:
                text = await answer.text()
                assert "redacted" not in text
                assert text.count("hunter2") == (8 if '"attempts"' in text else 6)


async def test_who_may_not_see_errors_cannot_look_for_them(shut: Api) -> None:
    for scope, status in ((Scope.READ, 403), (Scope.PAYLOADS, 200)):
        async with caller(shut, TOKENS[scope]) as known:
            for path in ("/api/tasks?error=hunter2", "/api/tasks/count?error=hunter2"):
                async with known.http.get(path) as answer:
                    assert answer.status == status, path


async def test_events_are_hidden_too(shut: Api) -> None:
    async with AsyncExitStack() as stack:
        write, read, payloads = [
            await stack.enter_async_context(caller(shut, TOKENS[Scope(name)])) for name in ("write", "read", "payloads")
        ]
        streams = [await stack.enter_async_context(who.http.get("/api/events?status=FAILED")) for who in (read, payloads)]
        for stream in streams:
            assert await stream.content.readline() == b"retry: 2000\n"
        task = await write.create(payload=SECRET)
        await write.finish(task["id"], "FAILED", error="hunter2")
        seen = [await event(stream) for stream in streams]
        assert [one["id"] for one in seen] == [task["id"]] * 2
        assert hidden(seen[0])
        assert (seen[0]["error"], seen[1]["error"], "redacted" in seen[1]) == (None, "hunter2", False)


async def event(stream: ClientResponse) -> dict[str, Any]:
    while True:
        line = await stream.content.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            return dict(json.loads(line[6:]))


async def test_a_stream_ends_when_its_token_is_revoked(shut: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.api.events.HEARTBEAT", 0.2)
    token = (await Tokens(shut.store.pool).create("ci", [Scope.READ], seconds=None)).secret
    async with caller(shut, token) as known, known.http.get("/api/events") as stream:
        assert await stream.content.readline() == b"retry: 2000\n"
        await Tokens(shut.store.pool).revoke("ci")
        async with asyncio.timeout(access.TTL + 2):
            await stream.content.read()
