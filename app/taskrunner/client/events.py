"""Server-sent events: read line by line, and taken up again where the stream broke."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import orjson

from taskrunner.client.errors import ApiError, Unreachable
from taskrunner.client.transport import Call, Transport
from taskrunner.client.values import Event

SILENCE = 60.0  # seconds beyond the usual timeout: the service sends a comment at least every 15
PAUSE = 1.0  # seconds before a broken stream is opened again, unless the service says otherwise


class Parser:
    """Lines to events, by the rules of the HTML standard (section 9.2.6)."""

    def __init__(self) -> None:
        self._event = ""
        self._data: list[str] = []
        self.last_id: str | None = None
        self.retry = PAUSE

    def feed(self, line: str) -> Event | None:
        """The event that this line completes, if it does."""
        if not line:
            event, data = self._event, self._data
            self._event, self._data = "", []
            return Event(event=event or "message", id=self.last_id, data=_value("\n".join(data))) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_id = value
            case "retry" if value.isdecimal():
                self.retry = int(value) / 1000
        return None


async def read_events(transport: Transport, params: list[tuple[str, str]], last: str | None) -> AsyncIterator[Event | float]:
    """One stream: its events, and whenever the service says so the seconds to wait before the next stream."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    parser = Parser()
    parser.last_id = last
    async with transport.stream(Call("GET", "/api/events", params, headers=headers, patience=SILENCE)) as answer:
        yield parser.retry
        async for raw in answer.content:
            before = parser.retry
            event = parser.feed(raw.decode("utf-8", "replace").rstrip("\r\n"))
            if parser.retry != before:
                yield parser.retry
            if event is not None:
                yield event


async def events_of(open_stream: Callable[[str | None], AsyncIterator[Event | float]], last: str | None) -> AsyncIterator[Event]:
    """Events for ever. Raises ApiError for what will not be better the next time, and Unreachable when the first stream cannot be had."""
    pause: float | None = None
    while True:
        try:
            async for item in open_stream(last):
                if isinstance(item, float):
                    pause = item
                else:
                    last = item.id or last
                    yield item
        except ApiError as error:
            if error.status != 503 or pause is None:
                raise
        except Unreachable:
            if pause is None:
                raise
        await asyncio.sleep(random.uniform(0.5, 1.0) * (PAUSE if pause is None else pause))  # noqa: S311 — jitter


def _value(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
