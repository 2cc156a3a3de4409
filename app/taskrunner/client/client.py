"""The asynchronous client."""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from typing import Any, Self, Unpack
from urllib.parse import quote
from uuid import UUID, uuid4

import orjson

from taskrunner.client.errors import Unsendable
from taskrunner.client.events import events_of, read_events
from taskrunner.client.transport import Call, Transport, dump
from taskrunner.client.values import Bulk, Count, Event, Failures, Filters, Lot, Made, Page, Scope, Task, TaskFields, Verb, Worker

LOCAL = "http://localhost:8080"
LONG_POLL = 30.0  # seconds of one request that waits
EARLY = 0.05  # seconds between two of them
JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
Id = str | UUID


class Client:
    """The service at ``base_url``, or at ``TASKRUNNER_API_URL``; ``token`` or ``TASKRUNNER_API_TOKEN`` goes along with each call.

    Creates carry an Idempotency-Key and so may be repeated: a call that meets a broken connection or a 503 is tried again, ``retries``
    times at most. Calls that could do something twice are repeated only where it is certain that nothing was done. ``timeout`` is in
    seconds, from one sign of life to the next. Errors are :class:`ApiError` (NotFound, Refused) and :class:`Unreachable`, and
    :class:`Unsendable`, a ValueError, for what cannot be sent as it was given, such as NaN.
    """

    def __init__(self, base_url: str | None = None, *, token: str | None = None, timeout: float = 30.0, retries: int = 5) -> None:
        url = base_url or os.environ.get("TASKRUNNER_API_URL") or LOCAL
        self._transport = Transport(url, token or os.environ.get("TASKRUNNER_API_TOKEN"), timeout=timeout, retries=retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. A later call opens them again."""
        await self._transport.close()

    async def create(
        self, task_type: str, payload: Any = None, *, idempotency_key: str | None = None, **fields: Unpack[TaskFields]
    ) -> Task:
        """Create a task; it is committed when this returns. No payload is an empty object. Raises Unsendable for what is not JSON.

        With an ``idempotency_key`` of your own, the same key and task give the same answer for a day, from whichever process.
        """
        body = dump(_body(task_type, payload, fields))
        call = Call("POST", "/api/tasks", body=body, headers=JSON | _keyed(idempotency_key), repeatable=True)
        return Task.model_validate(await self._transport.send(call))

    async def create_batch(self, tasks: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None) -> list[Made]:
        """Create up to 10,000 tasks, each a mapping with ``task_type`` and the fields of :meth:`create`: all of them or none.

        Raises Unsendable for what is not JSON.
        """
        headers = JSON | _keyed(idempotency_key)
        answer = await self._transport.send(Call("POST", "/api/tasks/batch", body=dump([*tasks]), headers=headers, repeatable=True))
        return [Made.model_validate(item) for item in answer["items"]]

    async def import_lines(self, lines: AsyncIterable[bytes]) -> AsyncIterator[Made]:
        """Create the tasks of an NDJSON stream of any length (chunks may end anywhere), all or none, in little memory.

        Yields what was made, in order, once all of it is committed. Raises Refused that names the line that is wrong.
        """
        call = Call("POST", "/api/tasks/batch", body=lines, headers=NDJSON, patience=600.0)
        async with self._transport.stream(call) as answer:
            rest = b""
            async for block in answer.content.iter_any():
                *whole, rest = (rest + block).split(b"\n")
                for line in whole:
                    yield Made.model_validate(orjson.loads(line))

    async def get(self, task: Id) -> Task:
        """The task, with its attempts that did not succeed. Raises NotFound."""
        return await self._get(task, 0.0)

    async def wait(self, task: Id, timeout: float | None = None) -> Task:  # noqa: ASYNC109 — the server's long poll is what waits
        """The task once it is finished, however it ended. Raises TimeoutError after ``timeout`` seconds, NotFound when it is gone."""
        if timeout is not None and math.isnan(timeout):  # no time is later than that
            raise ValueError("timeout must be a number of seconds, not NaN")
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONG_POLL if ends is None else max(0.0, min(LONG_POLL, ends - time.monotonic()))
            found = await self._get(task, left)
            if found.finished:
                return found
            if ends is not None and time.monotonic() >= ends:
                raise TimeoutError(f"task {found.id} is {found.status} after {timeout:g} seconds")
            await asyncio.sleep(EARLY)  # a service that stops answers at once

    async def _get(self, task: Id, seconds: float) -> Task:
        params = [("wait", f"{seconds:g}")] if seconds else []
        return Task.model_validate(await self._transport.send(Call("GET", _path(task), params, repeatable=True, patience=seconds)))

    async def list(self, *, page: int = 100, **filters: Unpack[Filters]) -> AsyncIterator[Task]:
        """Every task that fits, newest first, read ``page`` at a time while you go on."""
        cursor: str | None = None
        while True:
            found = await self.page(cursor, limit=page, **filters)
            for item in found.items:
                yield Task.model_validate(item)
            cursor = found.next_cursor
            if cursor is None:
                return

    async def page(self, cursor: str | None = None, *, limit: int = 100, **filters: Unpack[Filters]) -> Page:
        """One page of :meth:`list`; ``cursor`` is the ``next_cursor`` of the one before. New tasks never shift it."""
        params = [*_params(filters), ("limit", str(limit)), *([("cursor", cursor)] if cursor else [])]
        answer = await self._transport.send(Call("GET", "/api/tasks", params, repeatable=True))
        return Page(answer["items"], answer["next_cursor"])

    async def cancel(self, task: Id) -> Task:
        """Cancel it: at once when PENDING; a worker that holds it is told. Raises Refused when it is finished."""
        return await self._act(task, "cancel")

    async def retry(self, task: Id) -> Task:
        """Run a finished task again, with a new budget of attempts. Raises Refused when it is not finished."""
        return await self._act(task, "retry")

    async def run_now(self, task: Id) -> Task:
        """Make a pending task due now. Raises Refused when it is not PENDING."""
        return await self._act(task, "run")

    async def _act(self, task: Id, verb: str) -> Task:
        return Task.model_validate(await self._transport.send(Call("POST", f"{_path(task)}/{verb}")))

    async def count(self, **filters: Unpack[Filters]) -> Count:
        """How many tasks fit, counted up to 10,000."""
        return Count.model_validate(await self._transport.send(Call("GET", "/api/tasks/count", _params(filters), repeatable=True)))

    async def bulk(self, verb: Verb, **filters: Unpack[Filters]) -> Bulk:
        """Begin to cancel, retry or delete every task that fits, in the background. At least one filter is needed."""
        call = Call("POST", f"/api/tasks/bulk/{verb}", body=dump({name: value for name, value in filters.items() if value}), headers=JSON)
        return Bulk.model_validate(await self._transport.send(call))

    async def bulk_state(self, operation: Id) -> Bulk:
        """How far it is."""
        return Bulk.model_validate(await self._transport.send(Call("GET", f"/api/bulk/{_part(operation)}", repeatable=True)))

    async def errors(self, **window: Any) -> Sequence[Failures]:
        """FAILED tasks by kind of error, the most frequent first: ``window`` in seconds, ``task_type``."""
        return [Failures.model_validate(item) for item in await self._items("/api/errors", _params(window))]

    async def queues(self) -> Sequence[Lot]:
        """All queues by name: what waits and runs in each, and whether it is paused."""
        return [Lot.model_validate(item) for item in await self._items("/api/queues")]

    async def types(self) -> Sequence[Lot]:
        """The same by task type."""
        return [Lot.model_validate(item) for item in await self._items("/api/types")]

    async def pause(self, scope: Scope, name: str) -> None:
        """Start no more tasks of this queue or type, until it is resumed. What runs goes on."""
        await self._transport.send(Call("POST", f"/api/{scope}s/{_part(name)}/pause", repeatable=True))

    async def resume(self, scope: Scope, name: str) -> None:
        """Go on with this queue or type."""
        await self._transport.send(Call("POST", f"/api/{scope}s/{_part(name)}/resume", repeatable=True))

    async def workers(self) -> Sequence[Worker]:
        """Worker sessions, newest first: those that live, and those that died within the last hour."""
        return [Worker.model_validate(item) for item in await self._items("/api/workers")]

    async def drain(self, session: Id) -> Worker:
        """Ask a worker to take nothing more, to finish what it runs, and to end. Raises NotFound, or Refused when it is dead."""
        call = Call("POST", f"/api/workers/{_part(session)}/drain", repeatable=True)
        return Worker.model_validate(await self._transport.send(call))

    async def stats(self, **window: Any) -> dict[str, Any]:
        """How many tasks there are by status (``tasks``), and what happened in the ``window``: see ``GET /api/stats``."""
        return dict(await self._transport.send(Call("GET", "/api/stats", _params(window), repeatable=True)))

    async def _items(self, path: str, params: Sequence[tuple[str, str]] = ()) -> Sequence[Any]:
        return list((await self._transport.send(Call("GET", path, params, repeatable=True)))["items"])

    async def ready(self) -> None:
        """Return when the service can answer calls. Raises ApiError with the reason when it cannot, Unreachable when nobody is there."""
        await self._transport.send(Call("GET", "/api/readyz"))

    async def events(self, *, last_event_id: str | None = None, **filters: Any) -> AsyncIterator[Event]:
        """What happens to tasks, for ever: ``filters`` as the service takes them. A broken stream goes on where it was."""
        async for event in events_of(lambda last: read_events(self._transport, _params(filters), last), last_event_id):
            yield event


def _body(task_type: str, payload: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if value is not None}
    return {"task_type": task_type, "payload": {} if payload is None else payload, **given}


def _keyed(key: str | None) -> dict[str, str]:
    """The Idempotency-Key header: the caller's key, or a fresh one for the repetitions of this very call."""
    if key is not None and not key.isprintable():
        raise Unsendable(f"the idempotency key {key!r} cannot be sent: it must have printable characters only")
    text = uuid4().hex if key is None else key.replace("\\", "\\\\").replace('"', '\\"')
    return {"Idempotency-Key": f'"{text}"'}


def _params(filters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Query parameters: each word of a filter with several is sent on its own."""
    params = []
    for name, value in filters.items():
        words = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
        params += [(name, _text(word)) for word in words if word is not None]
    return params


def _text(value: Any) -> str:
    return _utf8(value) if isinstance(value, str) else dump(value).decode().strip('"')


def _path(task: Id) -> str:
    return f"/api/tasks/{_part(task)}"


def _part(value: object) -> str:
    """An id or a name as one part of a path. With one that is empty or dots it would be another path."""
    text = _utf8(str(value))
    if text in ("", ".", ".."):
        raise Unsendable("an empty text cannot stand in an address, nor can dots: give an id or a name")
    return quote(text, safe="")


def _utf8(text: str) -> str:
    """The text, which would lose letters on the way where it is not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unsendable(f"{text!r} cannot be sent: it is not UTF-8") from None
    return text
