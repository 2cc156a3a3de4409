"""Columns of the wire as array parameters of a statement: the bytes go through, no object is made for a task."""

import struct
from dataclasses import dataclass

from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

UUID, UUID_ARRAY = 2950, 2951
INT4, INT4_ARRAY = 23, 1007
INT8, INT8_ARRAY = 20, 1016
FLOAT4, FLOAT4_ARRAY = 700, 1021


@dataclass(frozen=True, slots=True)
class Column:
    """A column of entries of fixed width. Subclasses say which array it is to PostgreSQL."""

    blob: bytes


class Uuids(Column):
    """uuid[]"""


class Ints(Column):
    """integer[]"""


class Longs(Column):
    """bigint[]"""


class Floats(Column):
    """real[]"""


def _dumper(array: int, element: int, width: int) -> type[Dumper]:
    class ColumnDumper(Dumper):
        format = Format.BINARY
        oid = array

        def dump(self, obj: Column) -> bytes:
            return array_of(obj.blob, element=element, width=width)

    return ColumnDumper


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
DUMPERS = {
    Uuids: _dumper(UUID_ARRAY, UUID, 16),
    Ints: _dumper(INT4_ARRAY, INT4, 4),
    Longs: _dumper(INT8_ARRAY, INT8, 8),
    Floats: _dumper(FLOAT4_ARRAY, FLOAT4, 4),
}


def register(adapters: AdaptersMap) -> None:
    """Teach a connection (or a pool's) the column types."""
    for column, dumper in DUMPERS.items():
        adapters.register_dumper(column, dumper)
