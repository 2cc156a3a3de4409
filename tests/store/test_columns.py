"""Columns of the wire as array parameters."""

import struct
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import AdaptersMap, PyFormat
from psycopg.types.array import ListBinaryDumper
from store.desk import Desk

from taskrunner.store.columns import DUMPERS, INT2, INT4, INT8, TEXT, UUID, Ints, Longs, Uuids, array_of, array_of_texts, register


def as_psycopg_does(values: list[Any], oid: int) -> bytes:
    """psycopg's own binary array, with its guess of the narrowest integer put right."""
    transformer = psycopg.adapt.Transformer()
    dumper = transformer.get_dumper(values, psycopg.adapt.PyFormat.BINARY)
    assert isinstance(dumper, ListBinaryDumper)
    blob = dumper.dump(values)
    assert blob is not None
    assert int.from_bytes(bytes(blob)[8:12], "big") == oid
    return bytes(blob)


@given(st.lists(st.uuids(), min_size=1, max_size=40))
def test_ids_are_what_psycopg_would_send(ids: list[Any]) -> None:
    assert array_of(b"".join(id_.bytes for id_ in ids), element=UUID, width=16) == as_psycopg_does(ids, UUID)


@given(st.lists(st.integers(2**31, 2**62), min_size=1, max_size=40))
def test_longs_are_what_psycopg_would_send(values: list[int]) -> None:
    assert array_of(struct.pack(f">{len(values)}q", *values), element=INT8, width=8) == as_psycopg_does(values, INT8)


@given(st.lists(st.integers(2**15, 2**31 - 1), min_size=1, max_size=40))
def test_ints_are_what_psycopg_would_send(values: list[int]) -> None:
    assert array_of(struct.pack(f">{len(values)}i", *values), element=INT4, width=4) == as_psycopg_does(values, INT4)


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=40))
def test_shorts_are_what_psycopg_would_send(values: list[int]) -> None:
    assert array_of(struct.pack(f">{len(values)}h", *values), element=INT2, width=2) == as_psycopg_does(values, INT2)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=40))
def test_texts_are_what_psycopg_would_send(texts: list[str]) -> None:
    assert array_of_texts(texts) == as_psycopg_does(texts, TEXT)


@given(st.binary(max_size=60), st.sampled_from([4, 8, 16]))
def test_a_torn_column_is_refused(blob: bytes, width: int) -> None:
    if len(blob) % width:
        with pytest.raises(ValueError, match=f"{len(blob)} bytes is not made of entries of {width}"):
            array_of(blob, element=UUID, width=width)
    else:
        assert len(array_of(blob, element=UUID, width=width)) == (20 + len(blob) // width * (width + 4) if blob else 12)


@pytest.mark.parametrize("n", [0, 1, 2, 500])
async def test_columns_go_through_the_database_and_back(desk: Desk, n: int) -> None:
    ids = b"".join(n.to_bytes(16, "big") for n in range(n))
    epochs = b"".join((-n if n % 2 else 2**40 + n).to_bytes(8, "big", signed=True) for n in range(n))
    numbers = b"".join((-n).to_bytes(4, "big", signed=True) for n in range(n))
    async with desk.store.pool.connection() as connection:
        cursor = await connection.execute(
            "select string_agg(uuid_send(a), ''), string_agg(int8send(b), ''), string_agg(int4send(c), ''), count(*)"
            " from unnest(%b::uuid[], %b::bigint[], %b::int[]) d (a, b, c)",
            (Uuids(ids), Longs(epochs), Ints(numbers)),
            binary=True,
        )
        row = await cursor.fetchone()
    assert row == ((ids, epochs, numbers, n) if n else (None, None, None, 0))


def test_a_connection_leaves_no_classes_behind() -> None:
    """psycopg keeps every class of dumper that it meets: one of its own for each connection was 13 kB that never came back."""
    taught = [AdaptersMap(psycopg.adapters) for _ in range(2)]
    for adapters in taught:
        register(adapters)
    for column in DUMPERS:
        first, second = (adapters.get_dumper(column, PyFormat.BINARY) for adapters in taught)
        assert first is second
