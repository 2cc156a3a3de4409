"""The proxy's faults, on a server that sends back what it gets."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from faults.proxy import DOWN, UP, Proxy, proxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def between() -> AsyncIterator[Proxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, proxy(server.sockets[0].getsockname()[1]) as one:
        yield one


async def say(to: Proxy | Streams, text: bytes, *, within: float = 5) -> bytes:
    """What comes back, on a new connection or on that one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", to.port) if isinstance(to, Proxy) else to
    writer.write(text)
    try:
        async with asyncio.timeout(within):
            return await reader.read(1000)
    finally:
        if isinstance(to, Proxy):
            writer.close()


async def test_it_passes_bytes_on(between: Proxy) -> None:
    assert await say(between, b"hello") == b"hello"


async def test_a_delay(between: Proxy) -> None:
    between.delay = 0.1
    began = asyncio.get_running_loop().time()
    assert await say(between, b"hello") == b"hello"
    assert asyncio.get_running_loop().time() - began >= 0.2, "once each way"


@pytest.mark.parametrize("way", [UP, DOWN])
async def test_a_stall_holds_bytes_back_and_then_lets_them_go(between: Proxy, way: str) -> None:
    streams = await asyncio.open_connection("127.0.0.1", between.port)
    between.stall(way)
    with pytest.raises(TimeoutError):
        await say(streams, b"hello", within=0.1)
    between.flow()
    assert await streams[0].readexactly(5) == b"hello"
    streams[1].close()


@pytest.mark.parametrize("way", [UP, DOWN])
async def test_swallowed_bytes_never_come_and_their_connection_is_reset(between: Proxy, way: str) -> None:
    streams = await asyncio.open_connection("127.0.0.1", between.port)
    between.swallows = {way}
    with pytest.raises(TimeoutError):
        await say(streams, b"hello", within=0.1)
    between.flow()
    with pytest.raises(ConnectionResetError):
        await streams[0].read()
    streams[1].close()
    assert await say(between, b"again") == b"again"


async def test_a_cut_comes_after_so_many_bytes(between: Proxy) -> None:
    between.cut_after = 6
    streams = await asyncio.open_connection("127.0.0.1", between.port)
    assert await say(streams, b"123456") == b"123456"
    with pytest.raises(ConnectionResetError):
        await say(streams, b"7")
    streams[1].close()


async def test_a_reset_meets_every_connection(between: Proxy) -> None:
    streams = await asyncio.open_connection("127.0.0.1", between.port)
    assert await say(streams, b"hello") == b"hello"
    assert between.reset() == 1
    with pytest.raises(ConnectionResetError):
        await streams[0].read()
    streams[1].close()


async def test_silence(between: Proxy) -> None:
    between.silent = True
    with pytest.raises(TimeoutError):
        await say(between, b"hello", within=0.1)
