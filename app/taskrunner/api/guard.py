"""Bodies from strangers: JSON that every later reader (PostgreSQL, workers in any language) reads the same way, or a refusal.

What is refused is what RFC 7493 (I-JSON) refuses, and a little more: broken UTF-8, NUL, lone surrogates, NaN and Infinity, numbers outside
a double, integers outside 64 bits, a key twice in one object, more than 64 levels. A refusal names the place by a JSON pointer (RFC 6901).

Two paths. ``orjson`` and a few searches over the raw bytes prove that nearly every body is clean; only what they cannot prove is read again
by ``json`` with hooks that keep what it would drop. Both are linear in the body.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import orjson

LEVELS = 64

_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG = b"0" * 19  # the shortest integer that may not fit 64 bits
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class BadJson(Exception):
    """The body is refused: ``pointer`` is the place, ``detail`` the reason."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


def loads(body: bytes) -> Any:
    """The value of a JSON body; raises :class:`BadJson`. Floats are rounded to doubles, as everywhere in JSON."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise explain(body) or BadJson("", f"is not JSON: {error}") from None
    if not is_plain(body, value):
        refusal = explain(body)
        if refusal is not None:
            raise refusal
    return value


def is_plain(body: bytes, value: Any) -> bool:
    r"""Whether the bytes alone prove that ``value``, which orjson read from them, is clean. False proves nothing.

    Colons: orjson keeps the last of two equal keys, so the text that it writes has fewer colons than the text that it read. An
    escaped colon could hide that, so ``\u003…`` is not plain.
    """
    return (
        (body.count(b"{") + body.count(b"[") <= LEVELS or _is_shallow(value))
        and _LONG not in body.translate(_ZEROS)
        and (b"\\u" not in body or (b"\\u0000" not in body and b"\\u003" not in body))
        and body.count(b":") == orjson.dumps(value).count(b":")
    )


def explain(body: bytes) -> BadJson | None:
    """The slow path: the first thing that is wrong with ``body``, or None."""
    if not body:
        return BadJson("", "is empty: send a JSON document")
    if body.startswith(b"\xef\xbb\xbf"):
        return BadJson("", "begins with a byte order mark: send plain UTF-8")
    text = body.decode("utf-8", "surrogateescape")
    try:
        deep = _too_deep(text)
        if deep is not None:
            return BadJson(pointer(deep), f"is nested deeper than {LEVELS} levels")
        value = json.loads(text, object_pairs_hook=_Pairs, parse_int=_integer, parse_float=_double, parse_constant=_constant)
    except json.JSONDecodeError as error:
        return BadJson("", f"is not JSON: {error.msg} at character {error.pos}")
    found = _find(value)
    return None if found is None else BadJson(pointer(reversed(found[0])), found[1])


def pointer(parts: Iterable[str | int]) -> str:
    """The JSON pointer of ``parts``; what UTF-8 cannot carry is shown as an escape."""
    text = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return text.encode("utf-8", "backslashreplace").decode()


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with every pair that was sent."""


class _Refused:
    """Stands where a number was that we refuse."""

    def __init__(self, detail: str) -> None:
        self.detail = detail


def _constant(literal: str) -> object:
    return _Refused(f"is {literal}, which JSON does not have")


def _integer(literal: str) -> object:
    if len(literal) < len(_LONG) or (len(literal) <= 20 and -(2**63) <= int(literal) < 2**64):
        return 0
    return _Refused("is an integer that does not fit 64 bits: send it as a string")


def _double(literal: str) -> object:
    return 0.0 if math.isfinite(float(literal)) else _Refused("is a number that does not fit a double: send it as a string")


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(LEVELS):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container if type(container) is list else ())
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return True
    return False


def _too_deep(text: str) -> list[str | int] | None:
    """The way to the first container that is one level too deep. Works on any text, however deep, without recursion."""
    closers: list[str] = []
    for token in _TOKENS.finditer(text):
        mark = token[0]
        if mark in ("[", "{"):
            if len(closers) == LEVELS:
                return _way_to_the_end(text[: token.start()] + "0" + "".join(reversed(closers)))
            closers.append("]" if mark == "[" else "}")
        elif mark in ("]", "}"):
            if not closers:
                return None
            closers.pop()
        elif mark == '"':  # a string that never ends
            return None
    return None


def _way_to_the_end(text: str) -> list[str | int]:
    value: Any = json.loads(text, object_pairs_hook=_Pairs, parse_int=str)
    way: list[str | int] = []
    while isinstance(value, list):
        key, value = value[-1] if type(value) is _Pairs else (len(value) - 1, value[-1])
        way.append(key)
    return way


def _find(value: Any) -> tuple[list[str | int], str] | None:
    """The first fault below ``value``: its way, innermost first, and the reason. Recursion is bounded by LEVELS."""
    if isinstance(value, str):
        why = _text_fault(value)
        return None if why is None else ([], f"has {why}")
    if isinstance(value, _Refused):
        return [], value.detail
    if isinstance(value, _Pairs):
        return _find_in_object(value)
    if isinstance(value, list):
        for index, item in enumerate(value):
            found = _find(item)
            if found is not None:
                found[0].append(index)
                return found
    return None


def _find_in_object(pairs: _Pairs) -> tuple[list[str | int], str] | None:
    seen: set[str] = set()
    for key, item in pairs:
        if key in seen:
            return [key], "stands twice in its object"
        why = _text_fault(key)
        if why is not None:
            return [key], f"is a key with {why}"
        seen.add(key)
        found = _find(item)
        if found is not None:
            found[0].append(key)
            return found
    return None


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character, which PostgreSQL cannot store"
    if text.isascii() or not _SURROGATE.search(text):
        return None
    return "bytes that are not UTF-8, or half of a surrogate pair"
