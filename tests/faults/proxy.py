"""A TCP proxy with faults: a delay, a stall or a black hole each way, a cut after some bytes, a reset, an answer that never comes."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

UP, DOWN = "up", "down"  # from the client to the server, and back


class Pipe:
    """One client and its server. ``lossy`` once bytes were swallowed: such a connection can only be reset."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.lossy = False

    def reset(self) -> None:
        """RST to both sides: lingering for 0 seconds discards what is buffered."""
        for writer in (self.client, self.server):
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Its faults are attributes that may change at any time: they count for connections that are open, too."""

    def __init__(self, port: int) -> None:
        self.to = port
        self._pipes: set[Pipe] = set()
        self._flowing = {UP: asyncio.Event(), DOWN: asyncio.Event()}
        self.delay = 0.0  # seconds for each chunk
        self.cut_after: int | None = None  # bytes from the server, a connection
        self.silent = False  # accept, and say nothing
        self.swallows: set[str] = set()  # directions whose bytes, and whose end, vanish
        self.port = 0
        self.flow()

    def stall(self, *ways: str) -> None:
        """Hold the bytes of these directions back, in order, until ``flow``."""
        for way in ways:
            self._flowing[way].clear()

    def flow(self) -> None:
        """Let everything through again. Connections that lost bytes are reset."""
        self.swallows = set()
        for event in self._flowing.values():
            event.set()
        for pipe in [pipe for pipe in self._pipes if pipe.lossy]:
            pipe.reset()

    def reset(self) -> int:
        """Reset every connection; how many."""
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.reset()
        return len(pipes)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client, until one side ends."""
        with suppress(OSError):
            try:
                if self.silent:
                    await reader.read()
                    return
                upstream, server = await asyncio.open_connection("127.0.0.1", self.to)
                await self._pipe(Pipe(writer, server), reader, upstream)
            finally:
                writer.transport.abort()

    async def _pipe(self, pipe: Pipe, client: asyncio.StreamReader, server: asyncio.StreamReader) -> None:
        self._pipes.add(pipe)
        try:
            with suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._copy(UP, pipe, client, pipe.server))
                    group.create_task(self._copy(DOWN, pipe, server, pipe.client))
        finally:
            self._pipes.discard(pipe)
            pipe.server.transport.abort()

    async def _copy(self, way: str, pipe: Pipe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while True:
            data = await reader.read(65536)
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing[way].wait()
            if way in self.swallows or (pipe.lossy and not data):
                pipe.lossy = True
                if data:
                    continue
                await asyncio.Event().wait()  # the end vanishes as well, until the connection is reset
            if not data:
                raise ConnectionResetError("this side has ended")
            passed += len(data)
            if way == DOWN and self.cut_after is not None and passed > self.cut_after:
                pipe.reset()
                raise ConnectionResetError("cut")
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def proxy(to: int, port: int = 0) -> AsyncIterator[Proxy]:
    """A proxy on ``port`` (0: any) of the loopback address to the port ``to`` there."""
    one = Proxy(to)
    clients: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = group.create_task(one.serve(reader, writer))
            clients.add(task)
            task.add_done_callback(clients.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", port)
        one.port = server.sockets[0].getsockname()[1]
        try:
            yield one
        finally:
            server.close()
            for task in clients:
                task.cancel()
