"""Columns of fixed width: what goes in comes out, and a torn one is refused."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.wire import columns

INTS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50)
TORN: list[Callable[[bytes], Sequence[Any]]] = [columns.ints, columns.longs, columns.floats, columns.doubles]


@given(INTS)
def test_ints(values: list[int]) -> None:
    blob = columns.pack_ints(values)
    assert list(columns.ints(blob)) == values
    assert [int.from_bytes(entry, "big", signed=True) for entry in columns.split(blob, 4)] == values


@given(st.lists(st.floats(allow_nan=False), max_size=50))
def test_doubles(values: list[float]) -> None:
    assert list(columns.doubles(columns.pack_doubles(values))) == values


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_longs(values: list[int]) -> None:
    assert list(columns.longs(b"".join(value.to_bytes(8, "big", signed=True) for value in values))) == values


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=50))
def test_floats(values: list[float]) -> None:
    assert list(columns.floats(b"".join(struct.pack(">f", value) for value in values))) == values


@given(st.lists(st.uuids(), max_size=50))
def test_ids(ids: list[Any]) -> None:
    assert columns.split(b"".join(id_.bytes for id_ in ids), columns.ID) == [id_.bytes for id_ in ids]


@given(st.binary(min_size=1, max_size=100), st.sampled_from([4, 8, 16]))
def test_a_torn_column_is_refused_and_a_whole_one_is_not(blob: bytes, width: int) -> None:
    if len(blob) % width:
        with pytest.raises(ValueError, match=f"{len(blob)} bytes is not made of entries of {width}"):
            columns.split(blob, width)
    else:
        assert b"".join(columns.split(blob, width)) == blob


@pytest.mark.parametrize("read", TORN)
def test_no_number_is_made_of_a_torn_entry(read: Callable[[bytes], Sequence[Any]]) -> None:
    with pytest.raises((ValueError, struct.error)):
        read(b"\0" * 9)
