"""A scheduler that does what a test says, at the other end of a real connection."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from grpclib.const import Cardinality
from grpclib.const import Handler as Route
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

from taskrunner.wire.pb.taskrunner.v1 import (
    BeatReply,
    BeatRequest,
    Hello,
    Outcomes,
    SchedulerMessage,
    Settled,
    Tasks,
    Welcome,
    WorkerMessage,
)


class Line:
    """One Work stream as the scheduler has it."""

    def __init__(self, stream: Stream[WorkerMessage, SchedulerMessage]) -> None:
        self._stream = stream
        self.hello = Hello()
        self.got: list[WorkerMessage] = []
        self.bell = asyncio.Event()
        self.ended = asyncio.Event()  # the worker ended it, or it broke
        self.hang_up = asyncio.Event()  # set it to end the stream from here
        self.settles = True

    async def send(self, **kind: Any) -> None:
        await self._stream.send_message(SchedulerMessage(**kind))

    async def give(self, tasks: Tasks) -> None:
        await self.send(tasks=tasks)

    @property
    def outcomes(self) -> list[Outcomes]:
        return [message.outcomes for message in self.got if message.outcomes is not None]

    async def settle(self, *batches: int) -> None:
        await self.send(settled=Settled(batches=list(batches)))

    async def until(self, true: Callable[[], bool], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                self.bell.clear()
                await self.bell.wait()

    async def listen(self) -> None:
        try:
            async for message in self._stream:
                self.got.append(message)
                self.bell.set()
                if message.outcomes is not None and self.settles:
                    await self.settle(message.outcomes.batch)
        except StreamTerminatedError:
            pass
        finally:
            self.ended.set()
            self.bell.set()


class Peer:
    """``welcome`` and ``reply`` say how Hello and beats are answered; None does not answer at all. ``refusal`` refuses every stream."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[Line] = asyncio.Queue()
        self.beats: list[BeatRequest] = []
        self.welcome: Welcome | None = Welcome(protocol=1, beat=0.1, lease=10)
        self.reply: BeatReply | None = BeatReply()
        self.refusal: GRPCError | None = None
        self.settles = True  # confirm outcomes as they come
        self.breathes = True  # signs of life
        self.beat_streams = 0
        self.address = ""

    async def line(self, seconds: float = 10) -> Line:
        """The next Work stream that a worker opens."""
        async with asyncio.timeout(seconds):
            return await self.lines.get()

    async def until_beats(self, n: int, seconds: float = 10) -> None:
        """Wait for ``n`` more beats."""
        wanted = len(self.beats) + n
        async with asyncio.timeout(seconds):
            while len(self.beats) < wanted:
                await asyncio.sleep(0.005)

    async def _work(self, stream: Stream[WorkerMessage, SchedulerMessage]) -> None:
        if self.refusal is not None:
            raise self.refusal
        line = Line(stream)
        first = await stream.recv_message()
        assert first is not None
        assert first.hello is not None
        line.hello, line.settles = first.hello, self.settles
        if self.welcome is not None:
            await line.send(welcome=self.welcome)
        self.lines.put_nowait(line)
        waits = [asyncio.ensure_future(line.listen()), asyncio.ensure_future(line.hang_up.wait())]
        breath = asyncio.ensure_future(self._breathe(line))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in (*waits, breath):
                wait.cancel()
            line.ended.set()

    async def _breathe(self, line: Line) -> None:
        while self.breathes and self.welcome is not None:
            await asyncio.sleep(self.welcome.beat)
            await line.send()

    async def _beat(self, stream: Stream[BeatRequest, BeatReply]) -> None:
        self.beat_streams += 1
        async for request in stream:
            self.beats.append(request)
            if self.reply is not None:
                await stream.send_message(self.reply)

    def __mapping__(self) -> dict[str, Route]:
        both = Cardinality.STREAM_STREAM
        return {
            "/taskrunner.v1.Scheduler/Work": Route(self._work, both, WorkerMessage, SchedulerMessage),
            "/taskrunner.v1.Scheduler/Beat": Route(self._beat, both, BeatRequest, BeatReply),
        }


class PeerServer(Server):
    """grpclib closes no connection of its own accord; this one does."""

    def __init__(self, peer: Peer) -> None:
        super().__init__([peer])
        self._connections: list[H2Protocol] = []

    def _protocol_factory(self) -> H2Protocol:
        self._connections.append(super()._protocol_factory())
        return self._connections[-1]

    async def leave(self) -> None:
        self.close()
        for connection in self._connections:
            connection.processor.close()
        await self.wait_closed()


@asynccontextmanager
async def open_peer(port: int = 0) -> AsyncIterator[Peer]:
    """A peer on a port of its own; leaving cuts its streams."""
    peer = Peer()
    server = PeerServer(peer)
    sock = socket.create_server(("127.0.0.1", port))
    await server.start(sock=sock)
    peer.address = f"127.0.0.1:{sock.getsockname()[1]}"
    try:
        yield peer
    finally:
        await server.leave()
