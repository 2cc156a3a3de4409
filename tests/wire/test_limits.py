"""F45: what a hostile peer may do on the gRPC port. It is dropped, nothing is allocated for it, and the others do not notice."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psutil
import pytest
from grpclib import GRPCError, Status
from grpclib.health.check import ServiceStatus
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, StreamEnded, StreamReset, TrailersReceived
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskrunner.settings import Settings
from taskrunner.wire import limits
from taskrunner.wire.channel import open_channel
from taskrunner.wire.codec import BadMessage, Codec
from taskrunner.wire.limits import MOST_BYTES, MOST_STREAMS
from taskrunner.wire.pb.taskrunner.v1 import BeatRequest, DescribeReply, SchedulerMessage, WorkerMessage, WorkerStub
from taskrunner.wire.server import serving
from taskrunner.worker.service import WorkerService

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"


@asynccontextmanager
async def door(**more: Any) -> AsyncIterator[int]:
    """A server as every worker has one, and its port."""
    health, service = ServiceStatus(), WorkerService()
    health.set(True)
    service.tell = lambda: DescribeReply(name="w", task_types=["x" * 1_000] * 20_000)
    async with serving(service, Settings(worker_port=0, **more), "worker", health=health) as address:
        yield int(address.rpartition(":")[2])


async def ask(port: int) -> None:
    """As an honest peer does."""
    async with open_channel("127.0.0.1", port, Settings()) as channel:
        await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)


class Peer:
    """HTTP/2 by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[Any] = []

    def begin(self, path: str = CHECK, **more: str) -> int:
        """A request whose body is still to come."""
        stream = self.h2.get_next_available_stream_id()
        head = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "x",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        self.h2.send_headers(stream, [(name, value) for name, value in (head | more).items() if value])
        return stream

    def say(self, stream: int, body: bytes, *, length: int | None = None, flag: bytes = b"\0", end: bool = False) -> None:
        self.h2.send_data(stream, flag + struct.pack(">I", len(body) if length is None else length) + body, end_stream=end)

    async def flush(self) -> None:
        self._writer.write(self.h2.data_to_send())
        await self._writer.drain()

    async def hear(self, until: Callable[[Any], bool], seconds: float = 5) -> bool:
        """Whether such an event came before the connection was closed."""
        with suppress(ConnectionError):
            await self.flush()
            async with asyncio.timeout(seconds):
                while data := await self._reader.read(65_536):
                    self.events += self.h2.receive_data(data)
                    await self.flush()
                    if any(until(event) for event in self.events):
                        return True
        return False

    async def closed(self, seconds: float = 5) -> bool:
        """Whether the server hangs up within that time."""
        try:
            return not await self.hear(lambda event: isinstance(event, ConnectionTerminated), seconds)
        except TimeoutError:
            return False


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()


def refusal(one: Peer) -> tuple[str, str]:
    """The status and the reason in the trailers that came."""
    (trailers,) = (dict(event.headers) for event in one.events if hasattr(event, "headers") and "grpc-status" in dict(event.headers))
    return trailers["grpc-status"], trailers.get("grpc-message", "")


def ended(event: Any) -> bool:
    return isinstance(event, StreamEnded | StreamReset)


@pytest.mark.parametrize("length", [2**32 - 1, MOST_BYTES + 1])
async def test_a_message_that_is_too_long_is_refused_by_its_first_bytes(length: int) -> None:
    async with door() as port, peer(port) as one:
        before = psutil.Process().memory_info().rss
        one.say(one.begin(), b"", length=length)
        assert await one.hear(ended, 1)
        assert refusal(one) == (str(Status.INVALID_ARGUMENT.value), f"a message may have 16 MiB, and this one says {length:,} bytes")
        assert psutil.Process().memory_info().rss - before < 20 << 20
        await ask(port)


@pytest.mark.parametrize(
    ("body", "more", "reason"),
    [
        (b"abc", {"flag": b"\1"}, "messages must not be compressed"),
        (b"abc", {"length": 100, "end": True}, "the message ends before the length that it gave"),
        (b"\xff\xff\xff", {"end": True}, "the message is not understood"),
    ],
    ids=["compressed", "cut short", "garbage"],
)
async def test_a_message_that_is_none_is_refused_with_the_reason(body: bytes, more: dict[str, Any], reason: str) -> None:
    async with door() as port, peer(port) as one:
        one.say(one.begin(), body, **more)
        assert await one.hear(ended, 1)
        status, said = refusal(one)
        assert status == str(Status.INVALID_ARGUMENT.value)
        assert said.startswith(reason)
        await ask(port)


async def test_a_client_does_not_take_too_long_a_message_either() -> None:
    """DescribeReply has 20 MB here."""
    async with door() as port, open_channel("127.0.0.1", port, Settings()) as channel:
        with pytest.raises(BadMessage, match="a message may have 16 MiB"):
            await WorkerStub(channel).describe(timeout=10)


async def test_streams_at_once_have_a_bound() -> None:
    async with door() as port, peer(port) as one:
        streams = [one.begin(WATCH) for _ in range(MOST_STREAMS + 4)]
        assert await one.hear(lambda event: isinstance(event, StreamReset) and event.stream_id == streams[-1], 2)
        assert {event.stream_id for event in one.events if isinstance(event, StreamReset)} == set(streams[MOST_STREAMS:])
        await ask(port)


@pytest.mark.parametrize("how", ["a thousand streams", "rapid reset"])
async def test_streams_one_after_the_other_have_a_bound(how: str) -> None:
    before = psutil.Process().memory_info().rss
    async with door() as port, peer(port) as one:
        for _ in range(1_000 // 50):
            for _ in range(50):
                stream = one.begin(WATCH)
                if how == "rapid reset":
                    one.h2.reset_stream(stream)
            with suppress(ConnectionError):
                await one.flush()
        assert await one.closed(1)
        assert psutil.Process().memory_info().rss - before < 20 << 20
        await ask(port)


async def test_a_stream_that_is_reset_at_once_is_forgotten() -> None:
    """Before its handler has run its first step: within the bound it may be done any number of times."""
    async with door() as port, peer(port) as one:
        for _ in range(MOST_STREAMS * 2):
            one.h2.reset_stream(one.begin(WATCH))
        await one.flush()
        one.say(one.begin(), b"", end=True)
        assert await one.hear(lambda event: isinstance(event, TrailersReceived), 2)
        assert refusal(one) == ("0", "")


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 20_000,
    ],
    ids=["HTTP/1", "TLS", "zeros", "a broken frame"],
)
async def test_garbage_is_hung_up_on_at_once(garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with door() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(garbage)
        async with asyncio.timeout(1):
            with suppress(ConnectionError):
                while await reader.read(65_536):
                    pass
        writer.close()
        await ask(port)
    assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


@pytest.mark.parametrize("headers", [{"x": "\u00e9"}, {"x": "y" * 70_000}, {":method": ""}], ids=["not ASCII", "70 kB", "no method"])
async def test_hostile_headers_are_hung_up_on(headers: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    async with door() as port:
        async with peer(port) as one:
            with suppress(Exception):  # the library that we attack with does not want to
                one.begin(**headers)
            assert await one.closed(2)
        await ask(port)
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "WARNING")] == []


async def test_who_asks_and_never_reads_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings are answered, and answers wait in memory."""
    monkeypatch.setattr(limits, "MOST_UNSENT", 1 << 16)
    monkeypatch.setattr(limits, "PERIOD", 60)
    async with door() as port:
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        for _ in range(100):
            h2.ping(b"12345678")
        greeting = h2.data_to_send()
        pings = greeting[-17 * 100 :] * 40
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, greeting)
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(20):
                    while True:
                        await loop.sock_sendall(sock, pings)
        await ask(port)


async def test_a_connection_on_which_nothing_goes_on_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first request and after the last; not while one is open."""
    monkeypatch.setattr(limits, "PERIOD", 0.2)
    async with door() as port, peer(port) as silent, peer(port) as done, peer(port) as busy:
        done.say(done.begin(), b"", end=True)
        stream = busy.begin(WATCH)
        busy.say(stream, b"", end=True)
        await done.flush()
        await busy.flush()
        assert await silent.closed(2)
        assert await done.closed(2)
        assert refusal(done)[0] == "0"
        assert not await busy.closed(1)


async def test_connections_have_a_bound_and_a_place_that_becomes_free_is_given_again() -> None:
    async with door(max_connections=10) as port:
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        for reader, _ in crowd:
            await reader.readexactly(9)  # the server's greeting: it holds the connection
        with pytest.raises((OSError, GRPCError, Exception)):
            await ask(port)
        for _, writer in crowd:
            writer.close()
        async with asyncio.timeout(5):
            while True:
                with suppress(Exception):
                    await ask(port)
                    break
                await asyncio.sleep(0.01)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([SchedulerMessage, WorkerMessage, BeatRequest]),
    st.binary(max_size=300),
    st.sampled_from([b"", b"\x12", b"\x1a", b"\x0a"]),
)
def test_whatever_bytes_come_they_are_a_message_or_a_bad_one(kind: type, data: bytes, head: bytes) -> None:
    """With lengths that fit, too, so that the inner message is read."""
    for whole in (head + data, head + bytes((len(data) & 0x7F,)) + data[: len(data) & 0x7F]):
        with suppress(BadMessage):
            assert isinstance(Codec().decode(whole, kind), kind)
