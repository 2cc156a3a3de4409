"""Frames between a worker and its children: two lengths, a JSON header, a body of bytes."""

import socket
import struct
from typing import Any

import orjson

LENGTHS = struct.Struct(">II")


def send(sock: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """Write one frame. Raises OSError when the other side is gone."""
    head = orjson.dumps(header)
    sock.sendall(LENGTHS.pack(len(head), len(body)) + head + body)


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Read one frame. Raises EOFError when the other side is gone; may wait for ever."""
    head, body = LENGTHS.unpack(_exactly(sock, LENGTHS.size))
    return orjson.loads(_exactly(sock, head)), _exactly(sock, body)


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError("the other side is gone")
        parts += part
    return bytes(parts)
