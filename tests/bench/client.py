"""A load generator for HTTP that costs little: keep-alive connections on raw sockets, one request in flight on each."""

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import cast

import uvloop


class Connection(asyncio.Protocol):
    """Sends a request, waits for its answer, sends the next one, until ``take`` has none left."""

    def __init__(self, take: Callable[[], bytes | None], done: Callable[[int, float], None], closed: asyncio.Future[None]) -> None:
        self._take = take
        self._done = done
        self._closed = closed
        self._began = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but does not say so
        self._send()

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of one."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length:", 0, head)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r\n", at)])
        if len(self._buffer) >= head + 4 + length:
            status = int(self._buffer[9:12])
            self._buffer = self._buffer[head + 4 + length :]
            self._done(status, time.perf_counter() - self._began)
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        if not self._closed.done():
            self._closed.set_result(None)

    def _send(self) -> None:
        assert self._transport is not None
        request = self._take()
        if request is None:
            self._transport.close()
        else:
            self._began = time.perf_counter()
            self._transport.write(request)


def request(path: str, body: bytes) -> bytes:
    """A POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def hammer(port: int, path: str, body: bytes, *, connections: int, seconds: float) -> dict[str, object]:
    """Requests of one kind for some seconds: how many a second, how long they took, and what was answered."""
    loop = asyncio.get_running_loop()
    message, ends = request(path, body), time.perf_counter() + seconds
    took: list[float] = []
    statuses: dict[int, int] = {}

    def take() -> bytes | None:
        return message if time.perf_counter() < ends else None

    def done(status: int, seconds: float) -> None:
        statuses[status] = statuses.get(status, 0) + 1
        took.append(seconds)

    began = time.perf_counter()
    closed = [loop.create_future() for _ in range(connections)]
    for end in closed:
        await loop.create_connection(lambda end=end: Connection(take, done, end), "127.0.0.1", port)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    await asyncio.wait(closed)
    took.sort()
    return {
        "rate": len(took) / (time.perf_counter() - began),
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[int(len(took) * 0.99)] * 1000,
        "statuses": statuses,
    }


async def trickle(port: int, *, rate: float, n: int) -> None:
    """Create ``n`` tasks at ``rate`` a second, each with the time of its request; a second of others warms up before."""
    loop = asyncio.get_running_loop()
    queue: list[bytes] = []
    free: list[Connection] = []
    answered = asyncio.Event()
    left = n + int(rate)
    wanted = left

    def take() -> bytes | None:
        return queue.pop(0) if queue else b""

    def done(status: int, _: float) -> None:
        nonlocal wanted
        if status != 201:
            raise SystemExit(f"a create was answered {status}")
        wanted -= 1
        if not wanted:
            answered.set()

    class Idle(Connection):
        """Waits for work where a Connection would end."""

        def _send(self) -> None:
            free.append(self)

        def go(self, message: bytes) -> None:
            assert self._transport is not None
            self._transport.write(message)

    for _ in range(16):
        await loop.create_connection(lambda: Idle(take, done, loop.create_future()), "127.0.0.1", port)
    began = time.time() + 0.05
    for k in range(left):
        await asyncio.sleep(max(0.0, began + k / rate - time.time()))
        number = k - int(rate)
        body = json.dumps({"task_type": "noop", "payload": {"i": number if number >= 0 else -1 - k, "t": time.time(), "p": "x" * 55}})
        while not free:
            await asyncio.sleep(0.0005)
        free.pop(0).go(request("/api/tasks", body.encode()))
    await answered.wait()


if __name__ == "__main__":
    command, port, *rest = sys.argv[1:]
    if command == "hammer":
        path, body, connections, seconds = rest
        print(json.dumps(uvloop.run(hammer(int(port), path, body.encode(), connections=int(connections), seconds=float(seconds)))))
    else:
        uvloop.run(trickle(int(port), rate=float(rest[0]), n=int(rest[1])))
