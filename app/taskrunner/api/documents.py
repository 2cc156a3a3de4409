"""What the API answers: tasks as JSON. Payloads and results are JSON text already and are spliced in, never read again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11

from taskrunner.domain.access import Caller, Scope
from taskrunner.domain.task import Created, FailedAttempt, NewTask, Task

JSON = "application/json"
# What is in a task: words of its maker and of its handler. Names and numbers are not.
CONTENTS = frozenset({"payload", "result", "error", "progress_message", "metadata", "callback_url"})


class Document(web.Response):
    """JSON on its way out: as the answer to an ordinary request it leaves in one piece, for a third of what aiohttp's general way costs."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send all of it, or begin as aiohttp does where something is out of the ordinary."""
        transport = request.transport
        if transport is None or transport.is_closing() or not self._is_ordinary(request):
            return await super().prepare(request)
        body = self.body
        assert isinstance(body, bytes)  # that is what ``answer`` makes
        lines = [f"HTTP/1.1 {self.status} {self.reason}", f"Content-Length: {len(body)}", f"Date: {rfc822_formatted_time()}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        head = "\r\n".join(lines)
        if head.count("\n") >= len(lines):
            raise ValueError("a header has more than one line")
        transport.write(f"{head}\r\n\r\n".encode() + body)
        self._keep_alive = self._eof_sent = True  # what aiohttp asks when it goes on
        return None

    def _is_ordinary(self, request: web.BaseRequest) -> bool:
        return (
            request.version == HttpVersion11
            and request.keep_alive
            and request.method != "HEAD"
            and self.keep_alive is None
            and not self._cookies
            and not self.prepared
        )


def answer(document: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """``document`` as JSON."""
    body = orjson.dumps(document, option=orjson.OPT_UTC_Z)
    return Document(body=body, status=status, headers={"Content-Type": JSON, **headers} if headers else {"Content-Type": JSON})


def moment(time: datetime) -> datetime | str:
    """RFC 3339 in UTC, always with microseconds, so that times sort as text: orjson writes them, unless they are zero."""
    utc = time.astimezone(UTC)
    return utc if utc.microsecond else utc.isoformat()[:-6] + ".000000Z"


def created_document(task: NewTask, created: Created) -> dict[str, object]:
    """A task that was committed just now: the same members as :func:`task_document`, without another look at the database."""
    at = moment(created.created_at)
    return {
        "id": created.id,
        "task_type": task.task_type,
        "queue": task.queue,
        "priority": task.priority,
        "payload": orjson.Fragment(task.payload),
        "status": "PENDING",
        "run_at": moment(created.run_at),
        "attempt": 0,
        "max_attempts": task.max_attempts,
        "timeout": task.timeout,
        "tags": task.tags,
        "created_at": at,
        "updated_at": at,
        "finished_at": None,
        "cancel_requested_at": None,
        "result": None,
        "error": None,
        "unique_key": task.unique_key,
        "expires_at": None if task.expires_at is None else moment(task.expires_at),
        "backoff": None if task.backoff is None else {name: said for name, said in asdict(task.backoff).items() if said is not None},
        "metadata": {} if task.metadata is None else orjson.Fragment(task.metadata),
        "traceparent": task.traceparent,
        "callback_url": task.callback_url,
        "progress": None,
        "progress_message": None,
    }


def created_answer(task: NewTask, created: Created, headers: dict[str, str] | None = None) -> web.Response:
    """201 with a task that was committed just now, and where it is."""
    return answer(created_document(task, created), status=201, headers={**(headers or {}), "Location": f"/api/tasks/{created.id}"})


def batch_document(created: Iterable[Created]) -> dict[str, object]:
    """The answer to a batch, in its order."""
    return {"items": [{"id": row.id, "status": "PENDING"} | ({"deduplicated": True} if row.deduplicated else {}) for row in created]}


def task_document(task: Task, caller: Caller) -> dict[str, object]:
    """A task as it is stored, or as much of it as the caller may see."""
    document = {
        "id": task.id,
        "task_type": task.task_type,
        "queue": task.queue,
        "priority": task.priority,
        "payload": orjson.Fragment(task.payload),
        "status": task.status,
        "run_at": moment(task.run_at),
        "attempt": task.attempt,
        "max_attempts": task.max_attempts,
        "timeout": task.timeout,
        "tags": task.tags,
        "created_at": moment(task.created_at),
        "updated_at": moment(task.updated_at),
        "finished_at": None if task.finished_at is None else moment(task.finished_at),
        "cancel_requested_at": None if task.cancel_requested_at is None else moment(task.cancel_requested_at),
        "result": None if task.result is None else orjson.Fragment(task.result),
        "error": task.error,
        "unique_key": task.unique_key,
        "expires_at": None if task.expires_at is None else moment(task.expires_at),
        "backoff": None if task.backoff is None else orjson.Fragment(task.backoff),
        "metadata": {} if task.metadata is None else orjson.Fragment(task.metadata),
        "traceparent": task.traceparent,
        "callback_url": task.callback_url,
        "progress": task.progress,
        "progress_message": task.progress_message,
    }
    return document if Scope.PAYLOADS in caller.scopes else redacted(document)


def redacted(document: Mapping[str, object]) -> dict[str, object]:
    """What somebody sees of a task, or of an event, who may not see what is in it."""
    return {name: None if name in CONTENTS else value for name, value in document.items()} | {"redacted": True}


def etag(task: Task) -> str:
    """A strong entity tag: every change of a task changes ``updated_at``."""
    return f'"{task.updated_at.timestamp() * 1_000_000:.0f}"'


def attempts_document(attempts: Sequence[FailedAttempt], caller: Caller) -> list[dict[str, object]]:
    """The attempts that failed, oldest first."""
    seen = Scope.PAYLOADS in caller.scopes
    return [
        {
            "attempt": failed.attempt,
            "outcome": failed.outcome,
            "error": failed.error if seen else None,
            "traceback": failed.traceback if seen else None,
            "worker": failed.worker,
            "run_ms": failed.run_ms,
            "ended_at": moment(failed.ended_at),
        }
        for failed in attempts
    ]
