"""Messages that leave together: each by itself would cost a system call, and wake its reader."""

from collections.abc import Iterable
from struct import Struct
from typing import Any

from grpclib.server import Stream

from taskrunner.wire.codec import Codec

HEAD = Struct(">?I")  # of a gRPC message: whether it is compressed, and its length
ENOUGH = 64 << 10  # bytes: a system call for more is no cheaper by the byte


async def send_together(stream: Stream[Any, Any], messages: Iterable[Any], message_type: type[Any]) -> None:
    """Send of ``messages`` what makes ``ENOUGH`` bytes, on a stream on which one was sent before. The others are not asked for."""
    codec, data = Codec(), bytearray()
    for message in messages:
        body = codec.encode(message, message_type)
        data += HEAD.pack(False, len(body))  # noqa: FBT003 — not compressed
        data += body
        if len(data) >= ENOUGH:
            break
    if data:
        await stream._stream.send_data(bytes(data))  # noqa: SLF001 — grpclib's own way sends one
