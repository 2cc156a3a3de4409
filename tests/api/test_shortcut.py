"""The short way of a create answers what the long way answers, and leaves to it all that is out of the ordinary."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from api.door import Api
from api.test_connections import Line
from api.tokens import TOKENS, closed, port_of

from taskrunner.api import creating, intake, shortcut
from taskrunner.api.documents import Document
from taskrunner.api.shortcut import Shortcut
from taskrunner.domain.access import Scope
from taskrunner.domain.errors import Unavailable
from taskrunner.store.tasks import Store

PLAIN = b'{"task_type": "x", "payload": {"a": [1, "\xc3\xbc"]}}'
FULL = json.dumps(
    {"task_type": "x", "queue": "q", "priority": 1, "tags": ["a"], "delay": 60, "max_attempts": 3, "timeout": 2.5, "metadata": {"b": 1}}
).encode()
BEARER = "Authorization: Bearer "
LONG = "X-Other: 1"  # means nothing, but the short way does not know that
CHANGING = re.compile(rb"[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[\d:.]+Z")


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way each request went."""
    ways: list[str] = []
    take = Shortcut.take

    async def watched(self: Shortcut, request: web.Request) -> web.Response | None:
        response = await take(self, request)
        ways.append("short" if response is not None else "long")
        return response

    monkeypatch.setattr(Shortcut, "take", watched)
    return ways


@asynccontextmanager
async def connected(api: Api) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(api))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


def post(body: bytes, *headers: str, path: str = "/api/tasks", host: str = "localhost") -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("body", [PLAIN, FULL], ids=["plain", "full"])
async def test_both_ways_answer_alike(api: Api, ways: list[str], body: bytes) -> None:
    answers = []
    async with connected(api) as line:
        for headers in ((), (LONG,)):
            await line.say(post(body, *headers))
            status, said, document = await line.hear()
            said["location"] = CHANGING.sub(b"*", said["location"].encode()).decode()
            answers.append((status, {name: said[name] for name in said if name != "date"}, CHANGING.sub(b"*", document)))
    assert ways == ["short", "long"]
    assert answers[0] == answers[1]
    assert answers[0][0] == 201
    assert await api.sql("select count(*), count(distinct payload) from tasks") == [(2, 1)]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (post(PLAIN, "Idempotency-Key: a"), 201, None),
        (post(PLAIN, "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), 201, None),
        (post(PLAIN, "Connection: close"), 201, None),
        (post(b'{"task_type": "x", "unique_key": "u"}'), 201, None),
        (post(b'{"task_type": "x", "payload": "' + b"x" * 70_000 + b'"}'), 201, None),
        (post(PLAIN, path="/api/tasks?x=1"), 201, None),
        (post(b""), 400, "invalid_json"),
        (post(b'{"task_type": "x", "task_type": "y"}'), 400, "invalid_json"),
        (post(b'{"task_type": ""}'), 422, "invalid_task"),
        (post(PLAIN, "Content-Encoding: gzip"), 415, "unsupported_encoding"),
        (post(PLAIN, "Content-Type: Multipart/form-data; boundary=x"), 415, "unsupported_media_type"),
        (post(PLAIN, "Origin: http://elsewhere.example"), 403, "cross_origin"),
        (post(PLAIN, host="elsewhere.example"), 403, "unknown_host"),
    ],
)
async def test_what_is_out_of_the_ordinary_goes_the_long_way(
    api: Api, ways: list[str], request_: bytes, status: int, code: str | None
) -> None:
    async with connected(api) as line:
        await line.say(request_)
        answered, _, document = await line.hear()
    assert (answered, json.loads(document).get("code")) == (status, code)
    assert ways == ["long"]
    assert await api.sql("select count(*) from tasks") == [(int(code is None),)]


async def test_a_body_that_comes_in_two_pieces_goes_the_long_way(api: Api, ways: list[str]) -> None:
    whole = post(PLAIN)
    async with connected(api) as line:
        await line.say(whole[:-10])
        await asyncio.sleep(0.05)
        await line.say(whole[-10:])
        assert (await line.hear())[0] == 201
    assert ways == ["long"]


async def test_requests_in_one_piece_are_answered_in_their_order(api: Api, ways: list[str]) -> None:
    pieces = [post(b'{"task_type": "x", "payload": %d}' % n, *([LONG] if n % 3 == 1 else [])) for n in range(9)]
    async with connected(api) as line:
        await line.say(b"".join(pieces))
        assert [json.loads((await line.hear())[2])["payload"] for _ in pieces] == [*range(9)]
    assert ways == ["short", "long", "short"] * 3


async def test_tokens_are_asked_for(dsn: str, ways: list[str]) -> None:
    async with closed(dsn) as api, connected(api) as line:
        ways.clear()
        for header, status in {
            "Accept: */*": 401,
            BEARER + "x" * 40: 401,
            BEARER + TOKENS[Scope.READ]: 403,
            BEARER + TOKENS[Scope.WRITE]: 201,
        }.items():
            await line.say(post(PLAIN, header))
            assert (await line.hear())[0] == status
    assert ways == ["long", "long", "long", "short"]


async def test_a_failure_of_the_database_is_answered_and_counted(api: Api, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(self: Store, tasks: object) -> None:
        raise Unavailable("the database is away: gone")

    monkeypatch.setattr(Store, "create", gone)
    async with connected(api) as line:
        await line.say(post(PLAIN))
        status, headers, document = await line.hear()
        assert (status, headers["retry-after"], json.loads(document)["code"]) == (503, "1", "unavailable")
        await line.say(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        metrics = (await line.hear())[2].decode()
    assert 'taskrunner_http_request_duration_seconds_count{method="POST",route="/api/tasks",status="503"} 1.0' in metrics
    assert ways == ["short", "long"]


async def test_what_nobody_expected_is_worded_by_the_long_way(api: Api, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RecursionError("deep")

    for module in (shortcut, creating):
        monkeypatch.setattr(module, "one_task", broken)
    async with connected(api) as line:
        await line.say(post(PLAIN))
        status, _, document = await line.hear()
    assert (status, json.loads(document)["code"], ways) == (500, "internal", ["long"])


async def test_bytes_are_counted_while_they_are_held(api: Api, ways: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST", len(FULL) - 1)
    async with connected(api) as line:
        for body, status in ((PLAIN, 201), (FULL, 503), (PLAIN, 201), (PLAIN, 201)):
            await line.say(post(body))
            assert (await line.hear())[0] == status
    assert ways == ["short", "long", "short", "short"]


async def test_a_header_has_one_line(api: Api) -> None:
    class Request:
        version, keep_alive, method = (1, 1), True, "POST"

        class transport:  # noqa: N801 — aiohttp's name
            is_closing = staticmethod(lambda: False)

    with pytest.raises(ValueError, match="more than one line"):
        await Document(body=b"{}", headers={"Location": "/x\r\nSet-Cookie: a=b"}).prepare(Request())  # type: ignore[arg-type]
