"""Hostile bodies are refused with the place named, and the fast path never lets through what the slow path refuses."""

import json
import time

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskrunner.api import guard
from taskrunner.api.guard import LEVELS, BadJson, loads

HOSTILE = [
    pytest.param(b'{"a":"x\\u0000y"}', "/a", "NUL", id="NUL"),
    pytest.param(b'{"a":{"x\\u0000y":1}}', "/a/x\0y", "NUL", id="NUL in a key"),
    pytest.param(b'{"a":[1,"\\ud800"]}', "/a/1", "surrogate", id="lone high surrogate"),
    pytest.param(b'{"a":["\\udc00\\ud800"]}', "/a/0", "surrogate", id="halves the wrong way round"),
    pytest.param(b'{"\\udfff":1}', "/\\udfff", "surrogate", id="surrogate in a key"),
    pytest.param(b'{"a":NaN}', "/a", "NaN", id="NaN"),
    pytest.param(b'{"a":[-Infinity]}', "/a/0", "-Infinity", id="Infinity"),
    pytest.param(b'{"a":1e400}', "/a", "double", id="1e400"),
    pytest.param(b'{"a":{"b":-1E+309}}', "/a/b", "double", id="-1E+309"),
    pytest.param(b'{"a":18446744073709551616}', "/a", "send it as a string", id="2**64"),
    pytest.param(b'{"a":-9223372036854775809}', "/a", "send it as a string", id="-2**63-1"),
    pytest.param(b'{"a":' + b"7" * 5000 + b"}", "/a", "send it as a string", id="5000 digits"),
    pytest.param(b'{"a":1,"b":{"c":1,"c":2}}', "/b/c", "twice", id="a key twice"),
    pytest.param(b'{"a":1,"\\u0061":2}', "/a", "twice", id="a key twice, once escaped"),
    pytest.param(b'{"a":1,"a":"\\u003a"}', "/a", "twice", id="an escaped colon makes up for the lost pair"),
    pytest.param(b'{"a":"\xff\xfe"}', "/a", "UTF-8", id="bad UTF-8"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', "/a", "UTF-8", id="a surrogate as bytes"),
    pytest.param(b"", "", "empty", id="empty"),
    pytest.param(b"  \n", "", "not JSON", id="blank"),
    pytest.param(b"\xef\xbb\xbf{}", "", "byte order mark", id="BOM"),
    pytest.param(b"{} {}", "", "not JSON", id="trailing garbage"),
    pytest.param(b'{"a":1}\x00', "", "not JSON", id="trailing NUL"),
    pytest.param(b'{"a":"x\x01"}', "", "not JSON", id="control character"),
    pytest.param(b"{'a':1}", "", "not JSON", id="single quotes"),
    pytest.param(b'{"a":01}', "", "not JSON", id="leading zero"),
    pytest.param(b'{"a":"' + b"\\\\" * 1000, "", "not JSON", id="string without end"),
    pytest.param(b'{"a~/b":NaN}', "/a~0~1b", "NaN", id="pointer escapes"),
]


@pytest.mark.parametrize(("body", "pointer", "reason"), HOSTILE)
def test_hostile_bodies_are_refused_by_name(body: bytes, pointer: str, reason: str) -> None:
    with pytest.raises(BadJson) as caught:
        loads(body)
    assert caught.value.pointer == pointer
    assert reason in caught.value.detail


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        "text",
        0,
        2**64 - 1,
        -(2**63),
        1.7976931348623157e308,
        {"a": {"b": [1, 2.5, True, None, 'ü 😀 : { [ \\ "']}, "0": ""},
        {"digits": "1234567890123456789012345"},
        {"text": "\x01\x7f\u2028 \\u0000"},
        [{"a:b": ":"}] * 100,
    ],
    ids=repr,
)
def test_clean_bodies_come_through_unchanged(value: object) -> None:
    assert loads(orjson.dumps(value)) == value
    assert loads(json.dumps(value, indent=1).encode()) == value


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_64_levels_pass_and_65_are_named(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    assert loads((opening * LEVELS + "0" + closing * LEVELS).encode()) is not None
    for depth in (LEVELS + 1, 300, 20_000):
        with pytest.raises(BadJson, match="deeper than 64 levels") as caught:
            loads((f'{{"task_type":"x","payload":{opening}' + opening * depth + "0" + closing * (depth + 1) + "}").encode())
        assert caught.value.pointer.startswith("/payload/")


def test_depth_is_not_fooled_by_brackets_in_strings() -> None:
    assert loads(orjson.dumps({"a": "[" * 100, "b": ["]{" * 100]})) == {"a": "[" * 100, "b": ["]{" * 100]}
    with pytest.raises(BadJson, match="deeper"):
        loads(b'["]",' * 65 + b"0" + b',"["]' * 65)


def test_escapes_of_other_languages_take_the_fast_path() -> None:
    body = json.dumps({"name": "Zoë 😀"}).encode()
    assert guard.is_plain(body, orjson.loads(body))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (1 << 20),
        b'"' + b'\\"' * (1 << 19),
        b'["' + b"\\\\" * (1 << 19),
        b"[" + b'"a",' * (1 << 18) + b"NaN]",
        b'{"a":' * 200_000,
        b'{"' + b"k" * (1 << 19) + b'":[' + b"0," * (1 << 18) + b"NaN]}",
        b"9" * (1 << 20),
        b"[" + b"{}," * 300_000 + b"NaN]",
    ],
    ids=["openings", "escaped quotes", "escapes", "strings", "deep objects", "a long key above many values", "digits", "objects"],
)
def test_the_slow_path_is_linear(body: bytes) -> None:
    """A mebibyte of the worst: quadratic work would take minutes."""
    began = time.process_time()
    with pytest.raises(BadJson):
        loads(body)
    assert time.process_time() - began < 3


FRAGMENTS = st.sampled_from(
    [
        *'{}[]:,"0123456789-+.eE \\u/',
        *['"a"', '"b"', '"a":1', '"a":', ',"a":2', "\\u0000", "\\u003a", "\\u0061", "\\ud800", "\\ude00", "1e400", "NaN", "-Infinity"],
        *["18446744073709551616", "9" * 25, "0." + "1" * 25, "é", "\udcff", "\x00", "[" * 70, "]" * 70, '"]"', '"["', "true", "null"],
    ]
)
SOUP = st.lists(FRAGMENTS, max_size=12).map("".join)
NESTED = st.recursive(FRAGMENTS, lambda inner: st.one_of(st.lists(inner, max_size=4).map(lambda x: "[" + ",".join(x) + "]"),
    st.lists(st.tuples(st.sampled_from(['"a"', '"\\u0061"', '"b:"', '"\\u003a"', '"\\u0000"']), inner), max_size=4).map(
        lambda x: "{" + ",".join(f"{k}:{v}" for k, v in x) + "}")), max_leaves=12)  # fmt: skip


@settings(max_examples=1500)
@example('{"a":1,"a":"\\u003a"}')
@example('{"a":{"\\u0061":1,"a":2},"b:":[":"]}')
@example("[" * 65 + "]" * 65)
@given(st.one_of(SOUP, NESTED, NESTED.map(lambda text: '{"payload":' + text + "}")))
def test_the_fast_path_accepts_nothing_that_the_slow_path_refuses(text: str) -> None:
    body = text.encode("utf-8", "surrogateescape")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        with pytest.raises(BadJson):
            loads(body)
        return
    if guard.is_plain(body, value):
        assert guard.explain(body) is None
    elif guard.explain(body) is None:
        assert loads(body) == json.loads(body) == value


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=20,
)


@settings(max_examples=300)
@given(JSON, st.booleans())
def test_every_clean_value_is_accepted_however_it_is_written(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    if "\\u0000" not in text:
        assert loads(text.encode()) == value
