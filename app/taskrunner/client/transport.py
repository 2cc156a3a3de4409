"""One call: sent, repeated where that is safe, and its answer read."""

import asyncio
import json
import random
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, NamedTuple

import aiohttp
import orjson
from pydantic import BaseModel

from taskrunner.client.errors import ApiError, Unreachable, Unsendable, error_of
from taskrunner.kit.trace import current

BASE, CAP = 0.1, 5.0  # seconds between two tries, drawn with full jitter
BROKEN = (aiohttp.ClientError, TimeoutError, OSError)
Body = bytes | AsyncIterable[bytes]


class Call(NamedTuple):
    """A request. ``repeatable``: sending it a second time does nothing a second time. ``patience`` is seconds beyond the usual timeout."""

    method: str
    path: str
    params: Sequence[tuple[str, str]] = ()
    body: Body | None = None
    headers: Mapping[str, str] = {}
    repeatable: bool = False
    patience: float = 0.0


class Transport:
    """A pool of connections to one service. It opens with the first call, on that call's loop."""

    def __init__(self, base_url: str, token: str | None, *, timeout: float, retries: int) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url (TASKRUNNER_API_URL) must begin with http:// or https://, not {base_url!r}")
        if token and not token.isprintable():
            raise ValueError("token (TASKRUNNER_API_TOKEN) must have printable characters only: it has a line break, or the like")
        self._base = base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._retries = retries
        self._session: aiohttp.ClientSession | None = None

    async def send(self, call: Call) -> Any:
        """The JSON of the answer. Raises ApiError, or Unreachable."""
        tries = 0
        while True:
            try:
                async with self.open(call) as answer:
                    return orjson.loads(await answer.read() or b"null")
            except ApiError as error:
                again = error.code == "unavailable" or (call.repeatable and (error.status == 503 or error.code == "in_flight"))
                if not again or tries >= self._retries:
                    raise
                pause = error.retry_after or 0.0
            except orjson.JSONDecodeError as error:
                raise Unreachable(f"{self._base} answered with something else than JSON: is TASKRUNNER_API_URL right?") from error
            except BROKEN as error:
                # A connection that never was has carried nothing; of one that broke nobody knows what it did.
                again = call.repeatable or isinstance(error, aiohttp.ClientConnectorError)
                if not again or tries >= self._retries:
                    raise self._unreachable(error) from error
                pause = 0.0
            await asyncio.sleep(min(CAP, pause + random.uniform(0, BASE * 2**tries)))  # noqa: S311 — jitter
            tries += 1

    @asynccontextmanager
    async def open(self, call: Call) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer as a stream, once. Raises ApiError for one of 400 or more, and whatever breaks the connection."""
        trace = current()
        headers = call.headers if trace is None else {**call.headers, "traceparent": trace}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout, sock_read=self._timeout + call.patience)
        async with self._opened().request(
            call.method, self._base + call.path, params=call.params, data=call.body, headers=headers, timeout=timeout
        ) as answer:
            if answer.status >= 400:
                raise error_of(answer.status, _document(await answer.read()), _seconds(answer.headers.get("Retry-After")))
            yield answer

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer as a stream, with what breaks said in our words."""
        try:
            async with self.open(call) as answer:
                yield answer
        except BROKEN as error:
            raise self._unreachable(error) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)  # who calls decides how much at once
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self._session

    def _unreachable(self, error: BaseException) -> Unreachable:
        words = " ".join(str(error).split()) or type(error).__name__
        return Unreachable(f"no answer from {self._base}: {words}; is the service there, and is TASKRUNNER_API_URL right?")

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def dump(value: Any) -> bytes:
    """JSON: what orjson writes, pydantic models, and durations as seconds. Raises Unsendable."""
    try:
        text = orjson.dumps(value, default=_plain)
        if b"null" in text:  # which orjson writes for NaN and Infinity, too; json, which is slow, looks for those
            json.dumps(value, default=_opened, allow_nan=False, ensure_ascii=False)
    except TypeError as error:
        raise Unsendable(f"this cannot be sent as JSON: {error}") from error
    except ValueError as error:
        raise Unsendable("NaN and Infinity cannot be sent, JSON does not have them: send null, or a string") from error
    return text


def _plain(value: Any) -> Any:
    match value:
        case timedelta():
            return value.total_seconds()
        case BaseModel():
            return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


def _opened(value: Any) -> Any:
    """What may hold a float, of the things that json does not know and ``dump`` does."""
    match value:
        case Enum():
            return value.value
        case BaseModel():
            return value.model_dump(mode="json")
    return [getattr(value, field.name) for field in fields(value)] if is_dataclass(value) else None


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:  # something between us and the service answered
        return {}
    return document if isinstance(document, dict) else {}


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
