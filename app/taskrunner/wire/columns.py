"""Columns of fixed width inside ``bytes``: how ids, epochs and numbers of a whole batch travel without an object a task."""

import struct
from collections.abc import Sequence

ID = 16  # a UUID
EPOCH = 8  # opaque to workers
TRACEPARENT = 55  # W3C's text; zeros where a task has none


def split(blob: bytes, width: int) -> list[bytes]:
    """The entries of a column, each ``width`` bytes long. Raises ValueError for a torn one."""
    if len(blob) % width:
        raise ValueError(f"a column of {len(blob)} bytes is not made of entries of {width}")
    return [blob[at : at + width] for at in range(0, len(blob), width)]


def ints(blob: bytes) -> tuple[int, ...]:
    """A column of 4-byte integers."""
    return struct.unpack(f">{len(blob) // 4}i", blob)


def longs(blob: bytes) -> tuple[int, ...]:
    """A column of 8-byte integers."""
    return struct.unpack(f">{len(blob) // 8}q", blob)


def floats(blob: bytes) -> tuple[float, ...]:
    """A column of 4-byte floats."""
    return struct.unpack(f">{len(blob) // 4}f", blob)


def doubles(blob: bytes) -> tuple[float, ...]:
    """A column of 8-byte floats."""
    return struct.unpack(f">{len(blob) // 8}d", blob)


def pack_ints(values: Sequence[int]) -> bytes:
    """The column of ``values`` as 4-byte integers."""
    return struct.pack(f">{len(values)}i", *values)


def pack_doubles(values: Sequence[float]) -> bytes:
    """The column of ``values`` as 8-byte floats."""
    return struct.pack(f">{len(values)}d", *values)
