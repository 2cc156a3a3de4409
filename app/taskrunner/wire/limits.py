"""What a peer may do on a connection. grpclib takes a message of 4 GiB because its first bytes say so, any number of streams, and waits for
ever; ours refuses before it allocates, and hangs up on who sends garbage or nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from grpclib.config import Configuration
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamReset
from h2.settings import SettingCodes

from taskrunner.kit.sockets import watch_peer
from taskrunner.wire.codec import BadMessage

log = logging.getLogger(__name__)

MOST_BYTES = 16 << 20  # of one message
MOST_STREAMS = 16  # of one connection at a time; a worker has one, a curious person with reflection two or three
MOST_BEGUN = 200  # streams that a connection may begin within PERIOD
PERIOD = 5.0  # seconds; a connection on which nothing goes on for so long is closed
MOST_UNSENT = 1 << 20  # bytes of answers to pings and the like that a peer may leave unread
FRAME = 9  # bytes before each frame

# grpclib's pings cannot find a dead peer, and would keep a closed connection in memory until the next one is due.
QUIET = Configuration(_keepalive_time=None)


class CappedStream(Stream):
    """Refuses a message that is too long by its first bytes, one that is compressed, and one that ends early."""

    _in_head = True

    async def recv_data(self, size: int) -> bytes:
        """The next ``size`` bytes: grpclib asks for a head and for a body by turns. Raises BadMessage."""
        if size > MOST_BYTES:
            raise BadMessage(f"a message may have {MOST_BYTES >> 20} MiB, and this one says {size:,} bytes")
        try:
            data = await super().recv_data(size)
        except AssertionError:
            raise BadMessage("the message ends before the length that it gave") from None
        if self._in_head and data[:1] not in (b"", b"\0"):
            raise BadMessage("messages must not be compressed")
        self._in_head = not self._in_head
        return data


class CappedConnection(Connection):
    """Makes streams that know limits."""

    def create_stream(self, *, stream_id: int | None = None, wrapper: Wrapper | None = None) -> Stream:
        """A stream of this connection."""
        return CappedStream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)


class CappedProtocol(H2Protocol):
    """Either end of a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """grpclib's, but that the connection is one of ours."""
        super().connection_made(transport)
        watch_peer(transport)
        self.connection = CappedConnection(self.connection._connection, self.connection._transport, config=self.config)  # noqa: SLF001 — grpclib has no other way in
        self.processor = EventsProcessor(self.handler, self.connection)


class _Accepted(EventsProcessor):
    """A server's streams: not too many at once, and not too many after each other."""

    begun = 0

    def process_request_received(self, event: RequestReceived) -> None:
        """A stream begins, unless there are too many."""
        self.begun += 1
        if self.begun > MOST_BEGUN:
            self.close("too many streams")
        elif len(self.streams) >= MOST_STREAMS:
            self.connection._connection.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)  # noqa: SLF001 — as above
        else:
            super().process_request_received(event)

    def register(self, stream: Stream) -> Callable[[], None]:
        """As grpclib's; but what it returns may be called again."""
        release = super().register(stream)

        def once() -> None:
            if stream.id in self.streams:
                release()

        return once

    def process_stream_reset(self, event: StreamReset) -> None:
        """A stream was reset. A handler that is cancelled before its first step never releases its stream: it is done here."""
        stream = self.streams.get(event.stream_id)
        super().process_stream_reset(event)
        if stream is not None and self.streams.pop(event.stream_id, None) is not None:
            self.connection.ack(event.stream_id, stream.buffer.unacked_size())


class ServerProtocol(CappedProtocol):
    """A server's end. ``made`` and ``lost`` count the connections; ``made`` says whether there is room for one more."""

    def __init__(self, *grpclibs: Any, made: Callable[["ServerProtocol"], bool], lost: Callable[["ServerProtocol"], None]) -> None:
        super().__init__(*grpclibs)
        self._made = made
        self._lost = lost
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or hang up."""
        super().connection_made(transport)
        self.processor = _Accepted(self.handler, self.connection)
        if not self._made(self):
            self.processor.close("too many connections")
            return
        self.connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS})  # noqa: SLF001 — as above
        self.connection.flush()
        self._look_again()

    def data_received(self, data: bytes) -> None:
        """Hang up on what is no HTTP/2, whatever it breaks, and on a peer that asks and does not read."""
        if self.connection.is_closing():
            return
        try:
            super().data_received(data)
        except Exception as error:  # noqa: BLE001 — h2 and grpclib raise many things at hostile frames, and the loop would log each
            log.debug("hung up on a peer that does not speak HTTP/2: %r", error)
            self.processor.close("not understood")
            return
        if self.connection.is_closing():
            return
        h2, transport = self.connection._connection, self.connection._transport  # noqa: SLF001 — as above
        if len(h2.incoming_buffer._data) > h2.max_inbound_frame_size + FRAME:  # noqa: SLF001 — h2 would gather all 16 MiB of it first
            self.processor.close("a frame is too long")
        elif transport.get_write_buffer_size() > MOST_UNSENT:
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """It is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._lost(self)
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PERIOD, self._look)

    def _look(self) -> None:
        accepted = self.processor
        assert isinstance(accepted, _Accepted)
        if not accepted.streams and not accepted.begun:
            accepted.close("nothing goes on")
            return
        accepted.begun = 0
        self._look_again()
