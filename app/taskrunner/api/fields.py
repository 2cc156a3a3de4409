"""The types of a task's fields: how each is checked, and how OpenAPI describes it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, Strict, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError
from yarl import URL

from taskrunner.domain.retry import Backoff, Growth

PAYLOAD_BYTES = 256 << 10
METADATA_BYTES = 16 << 10
KEY_BYTES = 1000
CENTURY = 36_525 * 86_400  # the longest delay, in seconds
MONTH = 30 * 86_400  # the longest timeout

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def instant(value: Any) -> datetime:
    """An RFC 3339 time, in UTC. Without an offset a time means something else to everyone: refused."""
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):  # 30 February, 24:00, or outside the years 1 to 9999 in UTC
            pass
    raise PydanticCustomError("instant", "must be an RFC 3339 time with an offset, such as 2026-02-20T10:00:00Z")


def _instant_or_null(value: Any) -> datetime | None:
    return None if value is None else instant(value)


def _payload(value: Any) -> str:
    text = orjson.dumps(value)
    if len(text) > PAYLOAD_BYTES:
        raise PydanticCustomError("payload_too_large", "must be at most 256 KiB of JSON: store large things elsewhere and send a reference")
    return text.decode()


def _metadata(value: Any) -> str | None:
    if value is None:
        return None
    text = orjson.dumps(value)
    if not isinstance(value, dict) or len(text) > METADATA_BYTES:
        raise PydanticCustomError("metadata", "must be a JSON object of at most 16 KiB")
    return text.decode() if value else None


def _unique_key(value: str) -> str:
    if len(value.encode()) > KEY_BYTES:
        raise PydanticCustomError("unique_key", "must be at most 1000 bytes of UTF-8")
    return value


def _traceparent(value: str) -> str:
    if not _TRACEPARENT.fullmatch(value):
        raise PydanticCustomError(
            "traceparent", "must be a W3C traceparent, such as 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        )
    return value


def _web_url(value: str) -> str:
    try:
        url = URL(value)
        good = url.scheme in ("http", "https") and bool(url.host) and "@" not in url.raw_authority
    except ValueError:
        good = False
    if not good or any(character <= " " for character in value):
        raise PydanticCustomError("web_url", "must be an absolute http:// or https:// URL without a user name or password")
    return value


Name = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=200)]
Tag = Annotated[str, Strict(), StringConstraints(min_length=1, max_length=100)]
Seconds = Annotated[float, Strict()]
Positive = Annotated[float, Strict(), Field(gt=0, le=MONTH)]
Payload = Annotated[str, PlainValidator(_payload), WithJsonSchema({"description": "any JSON value, at most 256 KiB"})]
Instant = Annotated[datetime | None, PlainValidator(_instant_or_null), WithJsonSchema({"type": ["string", "null"], "format": "date-time"})]
Metadata = Annotated[
    str | None, PlainValidator(_metadata), WithJsonSchema({"type": ["object", "null"], "description": "your own words, at most 16 KiB"})
]
UniqueKey = Annotated[str, Strict(), StringConstraints(min_length=1), AfterValidator(_unique_key)]
Traceparent = Annotated[str, Strict(), AfterValidator(_traceparent)]
WebUrl = Annotated[str, Strict(), StringConstraints(max_length=2000), AfterValidator(_web_url)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffBody(Backoff):
    """How the task is retried: exponential (with full jitter), linear or constant; seconds. What is left out is the handler's own."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Growth = "exponential"
    base: Positive | None = None
    cap: Positive | None = None
