"""F43, F45 over HTTP: slow, silent, too many and too much. Who does so is dropped, and everybody else is served."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession

from taskrunner.api import connections, intake
from taskrunner.api.role import serve
from taskrunner.kit import sockets
from taskrunner.settings import Settings
from taskrunner.store.tasks import open_store

GET = b"GET /api/livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
TASK = b'{"task_type":"x"}'


class Line:
    """A connection by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def hear(self) -> tuple[int, dict[str, str], bytes]:
        """One answer: status, headers, body."""
        async with asyncio.timeout(10):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
            return int(head[0].split()[1]), headers, body

    async def closed(self, seconds: float) -> bool:
        """Whether the server hangs up within that time, whatever it says before."""
        try:
            async with asyncio.timeout(seconds):
                while await self._reader.read(65_536):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True


@asynccontextmanager
async def door(dsn: str, **more: Any) -> AsyncIterator[tuple[str, Callable[[], Any]]]:
    """The API: its address, and how to open a line to it."""
    settings = Settings(http_port=0, grace=1, **more)
    async with AsyncExitStack() as stack, open_store(dsn, settings) as store, serve(settings, store) as open_door:

        @asynccontextmanager
        async def line() -> AsyncIterator[Line]:
            reader, writer = await asyncio.open_connection("127.0.0.1", open_door.port)
            try:
                yield Line(reader, writer)
            finally:
                writer.transport.abort()

        yield open_door.url, lambda: stack.enter_async_context(line())


async def is_served(url: str) -> bool:
    async with ClientSession(url) as http, http.post("/api/tasks", data=TASK) as answer:
        return answer.status == 201


async def test_a_head_that_comes_in_drops_has_its_time(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fresh connection, on one that was used before, and on one that says nothing at all."""
    monkeypatch.setattr(connections, "HEAD", 0.5)
    async with door(dsn) as (url, line):
        silent, fresh, used = await line(), await line(), await line()
        await used.say(GET)
        assert (await used.hear())[0] == 200
        async with asyncio.TaskGroup() as group:
            for slow in (fresh, used):
                group.create_task(dribble(slow))
            for one in (silent, fresh, used):
                group.create_task(hung_up(one))
        assert await is_served(url)


async def dribble(line: Line) -> None:
    try:
        for letter in GET[:20]:
            await line.say(bytes((letter,)))
            await asyncio.sleep(0.1)
    except ConnectionError:
        pass


async def hung_up(line: Line) -> None:
    assert await line.closed(1.5)


async def test_a_connection_may_rest_between_requests(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD", 0.2)
    async with door(dsn) as (_, line):
        one = await line()
        for _ in range(2):
            await one.say(GET)
            assert (await one.hear())[0] == 200
            assert not await one.closed(0.5)


async def test_a_body_that_comes_in_drops_has_its_time(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "PATIENCE", 0.3)
    monkeypatch.setattr(connections, "LINGER", 0.3)
    async with door(dsn) as (url, line):
        one = await line()
        await one.say(POST % 500 + TASK[:3])
        status, _, body = await one.hear()
        assert (status, json.loads(body)["code"]) == (408, "too_slow")
        assert await one.closed(2)
        assert await is_served(url)


async def test_a_body_that_takes_its_time_and_comes_is_taken(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the patience in all, but never too slow."""
    monkeypatch.setattr(intake, "PATIENCE", 0.5)
    monkeypatch.setattr(intake, "LEAST", 100)
    body = json.dumps({"task_type": "x", "payload": "y" * 800}).encode()
    async with door(dsn) as (_, line):
        one = await line()
        await one.say(POST % len(body))
        for at in range(0, len(body), 200):
            await asyncio.sleep(0.2)
            await one.say(body[at : at + 200])
        assert (await one.hear())[0] == 201


async def test_one_connection_more_than_the_bound_takes_the_place_of_an_idle_one(dsn: str) -> None:
    async with door(dsn, max_connections=10) as (url, line):
        crowd = [await line() for _ in range(10)]
        await crowd[0].say(GET[:10])
        for one in crowd[1:]:
            await one.say(GET)
            assert (await one.hear())[0] == 200
        assert await is_served(url)
        assert await crowd[0].closed(1)
        await crowd[-1].say(GET)
        assert (await crowd[-1].hear())[0] == 200


async def test_one_more_than_the_bound_is_refused_while_all_are_busy(dsn: str) -> None:
    async with door(dsn, max_connections=10) as (url, line):
        busy = [await line() for _ in range(10)]
        for one in busy:
            await one.say(POST % 100)  # and nothing more for now
        await asyncio.sleep(0.3)
        status, headers, _ = await (await line()).hear()
        assert (status, headers["retry-after"]) == (503, "1")
        for one in busy:
            await one.say(TASK.ljust(100))
            assert (await one.hear())[0] == 201
        assert await is_served(url)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5_000)) + b"\r\n",
        b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 300,
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["long header", "many headers", "long path", "TLS", "smuggling", "HTTP/2"],
)
async def test_what_is_no_request_is_refused_in_one_line(dsn: str, head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with door(dsn) as (url, line):
        one = await line()
        await one.say(head)
        status, headers, body = await one.hear()
        assert (status, headers["content-type"], json.loads(body)["code"]) == (400, "application/problem+json", "bad_request")
        assert await one.closed(5)
        assert await is_served(url)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_bodies_at_once_have_a_bound(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the length that they say, and by what comes where they say none; what is answered counts no more."""
    monkeypatch.setattr(intake, "MOST", 1_000)
    monkeypatch.setattr(connections, "LINGER", 0.1)
    async with door(dsn) as (url, line):
        first, second, third = await line(), await line(), await line()
        await first.say(POST % 900)
        await asyncio.sleep(0.2)
        await second.say(POST % 200)
        status, headers, body = await second.hear()
        assert (status, headers["retry-after"], json.loads(body)["code"]) == (503, "1", "unavailable")
        await third.say(b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        await third.say(b"12c\r\n" + b" " * 300 + b"\r\n")
        assert (await third.hear())[0] == 503
        await first.say(TASK.ljust(900))
        assert (await first.hear())[0] == 201
        for _ in range(3):
            await first.say(POST % 900 + TASK.ljust(900))
            assert (await first.hear())[0] == 201
        assert await is_served(url)


async def test_who_does_not_read_is_hung_up_on(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel: nothing of ours waits for it."""
    monkeypatch.setattr(sockets, "STUCK", 500)
    async with door(dsn) as (url, line):
        one = await line()
        one._reader._transport.pause_reading()
        for _ in range(30):
            await one.say(b"GET /api/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10)
        async with asyncio.timeout(15):
            with pytest.raises(ConnectionError):
                while True:
                    await one.say(GET)
                    await asyncio.sleep(0.1)
        assert await is_served(url)
