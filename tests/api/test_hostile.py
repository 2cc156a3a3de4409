"""F36: bodies that are made to hurt, on every route that takes one. Each is refused by name and at once, and nothing else notices."""

import gzip
import io
import json
import time
from typing import Any
from uuid import uuid4

import psutil
import pytest
from aiohttp import ClientSession
from api.door import Api

SOME = str(uuid4())
ROUTES = [
    ("POST", "/api/tasks"),
    ("POST", "/api/tasks/batch"),
    ("PATCH", f"/api/tasks/{SOME}"),
    ("POST", "/api/tasks/bulk/cancel"),
    ("POST", "/api/session"),
    ("POST", "/api/work/claim"),
    ("POST", "/api/work/beat"),
    ("POST", "/api/work/settle"),
]
BODIES = {
    "NUL": b'{"task_type":"a\\u0000b"}',
    "lone surrogate": b'{"task_type":"x","payload":"\\ud800"}',
    "NaN": b'{"task_type":"x","payload":NaN}',
    "1e400": b'{"task_type":"x","payload":1e400}',
    "5,000 digits": b'{"task_type":"x","payload":' + b"9" * 5_000 + b"}",
    "depth 20,000": b'{"task_type":"x","payload":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "a key twice": b'{"task_type":"x","task_type":"y"}',
    "bad UTF-8": b'{"task_type":"x","payload":"\xff\xfe"}',
    "nothing": b"",
    "not JSON": b"task_type=x",
    "torn": b'{"task_type":"x","payload":{"a":[1,2,',
    "an array of arrays": b"[[[[]]]]",
    "unknown fields": b'{"task_type":"x","__proto__":{"admin":true}}',
}


async def refused(http: ClientSession, method: str, path: str, body: bytes, **headers: str) -> tuple[int, float, dict[str, Any]]:
    """The status, the seconds that it took, and the document."""
    began = time.monotonic()
    async with http.request(method, path, data=io.BytesIO(body), headers={"Content-Type": "application/json", **headers}) as answer:
        document = json.loads(await answer.read())
        assert answer.content_type == "application/problem+json", document
        return answer.status, time.monotonic() - began, document


@pytest.mark.parametrize("name", BODIES)
async def test_f36_hostile_bodies_are_refused_on_every_route(api: Api, name: str) -> None:
    before = psutil.Process().memory_info().rss
    took = []
    for method, path in ROUTES:
        status, seconds, document = await refused(api.http, method, path, BODIES[name])
        assert 400 <= status < 500, (method, path, document)
        assert document["error"]
        took.append(seconds)
    for line in (BODIES[name], b'{"task_type":"x"}\n' + BODIES[name]):
        status, seconds, document = await refused(
            api.http, "POST", "/api/tasks/batch", line + b"\n", **{"Content-Type": "application/x-ndjson"}
        )
        assert (400 <= status < 500) or not line.strip()
        took.append(seconds)
    assert sorted(took)[len(took) // 2] < 0.1
    assert psutil.Process().memory_info().rss - before < 20 << 20
    assert await api.sql("select count(*) from tasks") == [(0,)]


async def test_f36_bodies_that_are_too_large_or_compressed(api: Api) -> None:
    """A gzip bomb is not unpacked: its 1 GB would show in our memory."""
    bomb = gzip.compress(b'{"task_type":"x","payload":"' + bytes(1 << 27) + b'"}', compresslevel=9)
    before = psutil.Process().memory_info().rss
    for method, path in ROUTES:
        for coding in ("gzip", "deflate", "br", "zstd"):
            assert (await refused(api.http, method, path, bomb, **{"Content-Encoding": coding}))[0] == 415
        assert (await refused(api.http, method, path, bytes((8 << 20) + 1)))[0] == 413
        assert (await refused(api.http, method, path, b"--x\r\n", **{"Content-Type": "multipart/form-data; boundary=x"}))[0] == 415
    assert (await refused(api.http, "POST", "/api/tasks", b'{"task_type":"x","payload":"' + b"y" * (1 << 20) + b'"}'))[0] == 413
    assert (await refused(api.http, "POST", "/api/tasks", b'{"task_type":"x","payload":"' + b"y" * (300 << 10) + b'"}'))[0] == 413
    assert psutil.Process().memory_info().rss - before < 40 << 20


@pytest.mark.parametrize(
    "query", ["limit=1e9", "limit=-1", "cursor=%00", "cursor=" + "A" * 4_000, "created_after=%ff", "queue=%00", "tag=\ud83d"]
)
async def test_f36_hostile_queries(api: Api, query: str) -> None:
    async with api.http.get(f"/api/tasks?{query}") as answer:
        assert 200 <= answer.status < 500, await answer.text()
