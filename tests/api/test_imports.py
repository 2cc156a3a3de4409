"""NDJSON streams: any length, all or nothing, and a bad line by its number."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from api.door import Api, problem

from taskrunner.api import imports
from taskrunner.store.imports import MOST

NDJSON = {"Content-Type": "application/x-ndjson"}
GOOD = '{"task_type":"x"}'


async def refused(api: Api, body: str | bytes) -> tuple[int, str, dict[str, Any]]:
    async with api.http.post("/api/tasks/batch", data=body, headers=NDJSON) as answer:
        document = await problem(answer)
    assert await api.sql("select 1 from tasks") == []
    return answer.status, document["error"], document["errors"][0]


async def test_a_stream_becomes_tasks_in_its_order(api: Api) -> None:
    lines = [{"task_type": "x", "payload": {"n": n, "s": 'é"\\\n'}, "priority": n % 4 + 1, "delay": n % 2 * 60} for n in range(5_001)]
    heard: list[Any] = []
    api.store.hints.subscribe(heard.append)
    async with api.http.post("/api/tasks/batch", data="\n".join(map(json.dumps, lines)), headers=NDJSON) as answer:
        assert (answer.status, answer.content_type) == (201, "application/x-ndjson")
        rows = [json.loads(line) async for line in answer.content]
    assert {row["status"] for row in rows} == {"PENDING"}
    stored = dict(await api.sql("select id::text, payload from tasks_live"))
    assert [stored[row["id"]] for row in rows] == [line["payload"] for line in lines]
    while len({lane.priority for hint in heard for lane in hint.lanes}) < 4:
        await asyncio.sleep(0.01)


async def test_a_stream_may_end_with_a_newline_or_be_empty(api: Api) -> None:
    for body, n in ((GOOD + "\n", 1), (GOOD + "\r\n" + GOOD + "\r\n", 2), ("", 0)):
        async with api.http.post("/api/tasks/batch", data=body, headers=NDJSON) as answer:
            assert answer.status == 201
            assert len((await answer.text()).splitlines()) == n


@pytest.mark.parametrize(
    ("line", "status", "why", "pointer"),
    [
        ('{"task_type":"x","priority":9}', 422, "priority must be less than or equal to 4", "/priority"),
        ('{"priority":1}', 422, "task_type is required", "/task_type"),
        ('{"task_type":"x","stuff":1}', 422, "stuff is not a field of a task: leave it out", "/stuff"),
        ('{"task_type":"x","unique_key":"k"}', 422, "unique_key cannot be used in a stream: send the task in an array", "/unique_key"),
        ('{"task_type":', 400, None, ""),
        ("", 400, None, ""),
        ('{"task_type":"x","task_type":"y"}', 400, "task_type stands twice in its object", "/task_type"),
        ('{"task_type":"x","payload":1e999}', 400, None, "/payload"),
        ('{"task_type":"x"},{"task_type":"x"}', 400, None, ""),
        ('["task_type"]', 422, None, ""),
    ],
)
async def test_a_bad_line_is_named_and_nothing_is_written(api: Api, line: str, status: int, why: str | None, pointer: str) -> None:
    lines = [GOOD] * 2_500
    lines[2_100] = line
    found, sentence, fault = await refused(api, "\n".join(lines))
    assert (found, fault["line"], fault["pointer"]) == (status, 2_101, pointer)
    assert sentence.startswith("line 2101: ")
    assert why is None or sentence == f"line 2101: {why}"


async def test_a_line_that_is_too_long_is_refused_before_it_is_complete(api: Api) -> None:
    async with api.http.post("/api/tasks/batch", data=io.BytesIO(f"{GOOD}\n{{".encode() + b"x" * (2 << 20)), headers=NDJSON) as answer:
        assert (answer.status, (await problem(answer))["error"]) == (413, "line 2 must be at most 1 MiB")


async def test_a_stream_that_stalls_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "PATIENCE", 0.2)
    stop = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield GOOD.encode() + b"\n{"
        await stop.wait()

    async with api.http.post("/api/tasks/batch", data=slow(), headers=NDJSON) as answer:
        document = await problem(answer)
        assert (answer.status, document["code"]) == (408, "too_slow")
        assert document["error"].startswith("line 2 ")
        stop.set()


async def test_a_third_stream_is_told_to_come_back(api: Api) -> None:
    stop, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def slow() -> AsyncIterator[bytes]:
        yield (GOOD + "\n").encode()
        begun.release()
        await stop.wait()

    async def send() -> int:
        async with api.http.post("/api/tasks/batch", data=slow(), headers=NDJSON) as answer:
            return answer.status

    async with asyncio.TaskGroup() as group:
        sent = [group.create_task(send()) for _ in range(MOST)]
        for _ in sent:
            await begun.acquire()
        while (
            len(await api.sql("select 1 from pg_stat_activity where datname = current_database() and query like '%%taskrunner_import%%'"))
            < MOST + 1
        ):
            await asyncio.sleep(0.01)
        async with api.http.post("/api/tasks/batch", data=GOOD, headers=NDJSON) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        stop.set()
    assert [one.result() for one in sent] == [201] * MOST
    async with asyncio.timeout(5):  # their places are free a moment after their answers
        while True:
            async with api.http.post("/api/tasks/batch", data=GOOD, headers=NDJSON) as answer:
                if answer.status == 201:
                    break


async def test_an_idempotency_key_does_not_go_with_a_stream(api: Api) -> None:
    async with api.http.post("/api/tasks/batch", data=GOOD, headers={**NDJSON, "Idempotency-Key": "k"}) as answer:
        assert (answer.status, (await problem(answer))["code"]) == (400, "invalid_parameter")


async def test_memory_does_not_grow_with_the_stream(api: Api) -> None:
    """40 MB of tasks go through a process that must not hold them; the client, in the same process, holds one block."""
    block = (json.dumps({"task_type": "x", "payload": "y" * 2_000, "delay": 60}) + "\n").encode() * 200
    process, peak = psutil.Process(), 0

    async def stream() -> AsyncIterator[bytes]:
        nonlocal peak
        for number in range(100):
            if number == 20:
                peak = process.memory_info().rss
            yield block

    began = time.monotonic()
    async with api.http.post("/api/tasks/batch", data=stream(), headers=NDJSON) as answer:
        n = 0
        async for _ in answer.content:
            n += 1
    grown = (process.memory_info().rss - peak) / 1e6
    assert n == 20_000, time.monotonic() - began
    assert grown < 25
