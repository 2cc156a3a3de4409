"""``GET /api/tasks``: filters and pages. A page begins below the last id of the one before, so new tasks never shift it."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from multidict import MultiMapping
from pydantic_core import PydanticCustomError

from taskrunner.api.bodies import instant
from taskrunner.api.documents import answer, task_document
from taskrunner.api.errors import bad_parameter
from taskrunner.domain.lifecycle import Status
from taskrunner.domain.task import Task, TaskFilter
from taskrunner.store.tasks import Store

LIMIT = 50
MOST = 500


def _word(name: str, text: str) -> str:
    """A name to compare with; what no task can have is refused before the database refuses it less clearly."""
    if not 1 <= len(text) <= 200 or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise bad_parameter(name, "must be 1 to 200 characters of UTF-8 without NUL")
    return text


def _time(name: str, text: str) -> datetime:
    try:
        return instant(text)
    except PydanticCustomError as error:
        raise bad_parameter(name, f"{error.message()} (write + as %2B)") from None


def _limit(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= MOST):
        raise bad_parameter(name, f"must be a whole number from 1 to {MOST}")
    return int(text)


def _cursor(name: str, text: str) -> UUID:
    try:
        return UUID(bytes=base64.b64decode(text + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise bad_parameter(name, "must be the next_cursor of an earlier answer, unchanged") from None


def cursor_after(task: Task) -> str:
    """Where the page after ``task`` begins; opaque to clients."""
    return base64.urlsafe_b64encode(task.id.bytes).rstrip(b"=").decode()


_READERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "task_type": ("task_type", _word),
    "queue": ("queue", _word),
    "tag": ("tag", _word),
    "created_after": ("created_after", _time),
    "created_before": ("created_before", _time),
    "limit": ("limit", _limit),
    "cursor": ("before", _cursor),
}


def filter_of(query: MultiMapping[str]) -> TaskFilter:
    """The filter that a query string asks for; raises a 400 :class:`Problem` that names the parameter."""
    found: dict[str, Any] = {"limit": LIMIT}
    for name in set(query):
        if name == "status":
            found["statuses"] = _statuses(query.getall(name))
        elif name not in _READERS:
            raise bad_parameter(name[:100], f"is not a parameter of this path: it takes status, {', '.join(_READERS)}")
        elif len(query.getall(name)) > 1:
            raise bad_parameter(name, "is there twice: send it once")
        else:
            field, read = _READERS[name]
            found[field] = read(name, query[name])
    return TaskFilter(**found)


def _statuses(texts: Sequence[str]) -> tuple[Status, ...]:
    words = [word.strip() for text in texts for word in text.split(",")]
    if not set(words) <= set(Status):
        raise bad_parameter("status", f"must be one or more of {', '.join(Status)}")
    return tuple(status for status in Status if status in words)


async def list_tasks(request: web.Request, store: Store) -> web.Response:
    """One page, newest first. One task more than asked for is read: it tells whether there is a next page."""
    asked = filter_of(request.query)
    tasks = await store.list(replace(asked, limit=asked.limit + 1))
    page = tasks[: asked.limit]
    following = cursor_after(page[-1]) if len(tasks) > asked.limit else None
    headers = {}
    if following is not None:
        url = request.rel_url.update_query(cursor=following)
        headers["Link"] = f'<{url.raw_path_qs}>; rel="next"'
    return answer({"items": [task_document(task) for task in page], "next_cursor": following}, headers=headers)
