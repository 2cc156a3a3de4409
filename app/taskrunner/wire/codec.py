"""The codec of our streams: betterproto2's, but for the one column of each hot message that has an entry for every task.

betterproto2 spends 2 to 5 µs on each entry of a ``repeated bytes``, on either side; payloads and results are coded here by hand, at a
tenth of that. The bytes are the same protobuf.
"""

from functools import cache
from typing import Any, NamedTuple, TypeAlias

from grpclib import GRPCError, Status
from grpclib.encoding.proto import ProtoCodec

from taskrunner.wire.pb.taskrunner.v1 import Outcomes, SchedulerMessage, Tasks, WorkerMessage

Hot: TypeAlias = Tasks | Outcomes
LENGTH_DELIMITED = 2
SHORT = 4096


class Column(NamedTuple):
    """Where the column is: the member of the outer message and its tag, the repeated field of the inner one and its tag."""

    member: str
    outer: int
    inner: type[Hot]
    field: str
    tag: int


COLUMNS: dict[type[Any], Column] = {
    SchedulerMessage: Column("tasks", 2 << 3 | LENGTH_DELIMITED, Tasks, "payloads", 9 << 3 | LENGTH_DELIMITED),
    WorkerMessage: Column("outcomes", 3 << 3 | LENGTH_DELIMITED, Outcomes, "results", 5 << 3 | LENGTH_DELIMITED),
}


def varint(n: int) -> bytes:
    """``n`` as protobuf writes it: seven bits a byte, the lowest first."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


@cache
def _heads(tag: int) -> list[bytes]:
    """What stands before an entry of up to ``SHORT`` bytes."""
    return [bytes((tag,)) + varint(n) for n in range(SHORT)]


class BadMessage(GRPCError, ValueError):
    """A message that cannot be taken. On a server the peer hears INVALID_ARGUMENT and the reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(Status.INVALID_ARGUMENT, reason)

    def __str__(self) -> str:
        return self.message or ""


class Codec(ProtoCodec):
    """For both ends of a Work stream; all other messages are betterproto2's."""

    def encode(self, message: Any, message_type: Any) -> bytes:
        """``message`` as bytes."""
        column = COLUMNS.get(message_type)
        inner: Hot | None = getattr(message, column.member) if column else None
        if column is None or inner is None:
            return super().encode(message, message_type)
        entries: list[bytes] = getattr(inner, column.field)
        setattr(inner, column.field, [])
        try:
            rest = bytes(inner)
        finally:
            setattr(inner, column.field, entries)
        heads = _heads(column.tag)
        parts = [rest]
        for entry in entries:
            n = len(entry)
            parts.append(heads[n] if n < SHORT else bytes((column.tag,)) + varint(n))
            parts.append(entry)
        body = b"".join(parts)
        return bytes((column.outer,)) + varint(len(body)) + body

    def decode(self, data: bytes, message_type: Any) -> Any:
        """The message that ``data`` holds. Raises BadMessage when it is torn, or none at all."""
        try:
            return self._decode(data, message_type)
        except Exception as error:  # noqa: BLE001 — betterproto2 raises many things at strange bytes, not all of them on purpose
            raise BadMessage(f"the message is not understood: {error or type(error).__name__}") from None

    def _decode(self, data: bytes, message_type: Any) -> Any:
        column = COLUMNS.get(message_type)
        if column and data and data[0] == column.outer:
            length, at = _varint(data, 1)
            if at + length == len(data):
                return message_type(**{column.member: _inner(data, at, column)})
        return super().decode(data, message_type)


def _inner(data: bytes, at: int, column: Column) -> Hot:
    """The hot message from ``at`` to the end: its column by hand, all other fields, wherever they stand, by betterproto2."""
    end, tag = len(data), column.tag
    entries: list[bytes] = []
    rest = bytearray()
    try:
        while at < end:
            field = at
            this = data[at]
            n = data[at + 1]
            if this == tag and n < 0x80:  # nearly all of them
                at += 2
                entries.append(data[at : at + n])
                at += n
                continue
            this, at = _varint(data, at)
            n, after = _varint(data, at)
            if this & 7 == LENGTH_DELIMITED:
                at = after + n
                if this == tag:
                    entries.append(data[after:at])
                    continue
            else:
                at = _skip(data, at, this & 7)
            rest += data[field:at]
    except IndexError:
        raise ValueError("the message is torn") from None
    if at != end:
        raise ValueError("the message is torn")
    inner = column.inner.parse(bytes(rest))
    setattr(inner, column.field, entries)
    return inner


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends. Raises ValueError where there is none."""
    n = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("the message is torn")
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        if byte < 0x80:
            return n, at
        shift += 7
        if shift > 63:
            raise ValueError("the message has a number of more than 64 bits")


def _skip(data: bytes, at: int, kind: int) -> int:
    """Where a field that is not length-delimited ends."""
    if kind == 0:
        return _varint(data, at)[1]
    if kind in (1, 5):
        return at + (8 if kind == 1 else 4)
    raise ValueError(f"the message has a field of the unknown wire type {kind}")
