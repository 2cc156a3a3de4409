"""Columns of the wire as array parameters of a statement: the bytes go through, no object is made for a task."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

UUID, UUID_ARRAY = 2950, 2951
TEXT, TEXT_ARRAY = 25, 1009
INT2, INT2_ARRAY = 21, 1005
INT4, INT4_ARRAY = 23, 1007
INT8, INT8_ARRAY = 20, 1016
FLOAT4, FLOAT4_ARRAY = 700, 1021

_length = struct.Struct("!i").pack


@dataclass(frozen=True, slots=True)
class Column:
    """A column of entries of fixed width. Subclasses say which array it is to PostgreSQL."""

    blob: bytes


class Uuids(Column):
    """uuid[]"""


class Shorts(Column):
    """smallint[]"""


class Ints(Column):
    """integer[]"""


class Longs(Column):
    """bigint[]"""


class Floats(Column):
    """real[]"""


@dataclass(frozen=True, slots=True)
class Texts:
    """text[], without nulls"""

    texts: Sequence[str]


class _TextsDumper(Dumper):
    """A third of the time that psycopg takes for a list, which may hold anything."""

    format = Format.BINARY
    oid = TEXT_ARRAY

    def dump(self, obj: Texts) -> bytes:
        return array_of_texts(obj.texts)


def _dumper(array: int, element: int, width: int) -> type[Dumper]:
    class ColumnDumper(Dumper):
        format = Format.BINARY
        oid = array

        def dump(self, obj: Column) -> bytes:
            return array_of(obj.blob, element=element, width=width)

    return ColumnDumper


def array_of_texts(texts: Sequence[str]) -> bytes:
    """Texts as PostgreSQL's binary array."""
    pieces = [struct.pack("!iiIii", 1, 0, TEXT, len(texts), 1)]
    for text in texts:
        entry = text.encode()
        pieces += (_length(len(entry)), entry)
    return b"".join(pieces)


def array_of(blob: bytes, *, element: int, width: int) -> bytes:
    """The column as PostgreSQL's binary array: a header, then each entry behind its length.

    Written by strides: one slice assignment a byte of the width, whatever the number of entries.
    Raises ValueError for a torn column.
    """
    count, rest = divmod(len(blob), width)
    if rest:
        raise ValueError(f"a column of {len(blob)} bytes is not made of entries of {width}")
    if not count:
        return struct.pack("!iiI", 0, 0, element)
    step = width + 4
    out = bytearray(20 + count * step)
    struct.pack_into("!iiIii", out, 0, 1, 0, element, count, 1)
    out[23::step] = bytes((width,)) * count
    for at in range(width):
        out[24 + at :: step] = blob[at::width]
    return bytes(out)


# Made once: psycopg remembers every class of dumper that it met for as long as the process lives.
DUMPERS: dict[type, type[Dumper]] = {
    Texts: _TextsDumper,
    Uuids: _dumper(UUID_ARRAY, UUID, 16),
    Shorts: _dumper(INT2_ARRAY, INT2, 2),
    Ints: _dumper(INT4_ARRAY, INT4, 4),
    Longs: _dumper(INT8_ARRAY, INT8, 8),
    Floats: _dumper(FLOAT4_ARRAY, FLOAT4, 4),
}


def register(adapters: AdaptersMap) -> None:
    """Teach a connection (or a pool's) the column types."""
    for column, dumper in DUMPERS.items():
        adapters.register_dumper(column, dumper)
