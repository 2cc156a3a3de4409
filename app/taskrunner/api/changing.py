"""The routes that change one task."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from aiohttp import hdrs, web
from pydantic import ConfigDict, Field, Strict, TypeAdapter

from taskrunner.api import shapes
from taskrunner.api.access import caller_of
from taskrunner.api.bodies import TASK_BYTES
from taskrunner.api.documents import answer, etag, task_document
from taskrunner.api.errors import Fault, Problem, not_found
from taskrunner.api.fields import CENTURY, MONTH, PAYLOAD_BYTES, Instant, Seconds, Tag
from taskrunner.api.filters import invalid, read_body
from taskrunner.api.requests import json_body, task_id
from taskrunner.api.routes import CHANGED, CONFLICT, IF_MATCH, INVALID, NO_TASK, TASK_ID, Answer, Body, Route
from taskrunner.domain.access import Caller, Scope
from taskrunner.domain.errors import Conflict
from taskrunner.domain.lifecycle import FINISHED, HELD, Status
from taskrunner.domain.task import Task
from taskrunner.store.editing import Edited, Editing
from taskrunner.store.tasks import Store

MERGE_PATCH = "application/merge-patch+json"
TRIES = 5  # somebody else's change may come between reading and writing
ETAG = {"ETag": "names this state of the task; for If-Match"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPatch:
    """A JSON merge patch (RFC 7396) of a PENDING task. What is not named stays; ``payload`` is merged where both are objects.

    null takes ``max_attempts`` and ``timeout`` back to their defaults, ``payload`` to {}, and ``run_at`` to now.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    payload: Any = None
    priority: Annotated[int, Strict(), Field(ge=1, le=4)] = 2
    run_at: Instant = None
    delay: Annotated[Seconds, Field(ge=0, le=CENTURY)] | None = None
    max_attempts: Annotated[int, Strict(), Field(ge=1, le=1000)] | None = None
    timeout: Annotated[Seconds, Field(gt=0, le=MONTH)] | None = None
    tags: Annotated[tuple[Tag, ...], Field(max_length=20)] = ()


PATCH = TypeAdapter(TaskPatch)


class Changing:
    """Handlers that change the task of a path."""

    def __init__(self, *, store: Store) -> None:
        self._store = store
        self._editing = Editing(store)

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        path = "/api/tasks/{id}"
        done = Answer("the task afterwards", shapes.Task, headers=ETAG)
        obeys = {200: Answer("cancelled", shapes.Task, headers=ETAG), 202: Answer("its worker is told", shapes.Task, headers=ETAG)}
        shared: dict[str, Any] = {"group": "tasks", "scope": Scope.WRITE, "parameters": (TASK_ID,), "errors": (NO_TASK, CONFLICT)}
        guarded: dict[str, Any] = shared | {"parameters": (TASK_ID, IF_MATCH), "errors": (NO_TASK, CONFLICT, CHANGED)}
        body = Body({MERGE_PATCH: TaskPatch, "application/json": TaskPatch}, {"priority": 1, "run_at": "2026-11-24T08:25:12Z"})
        patched = guarded | {"errors": (*guarded["errors"], INVALID), "body": body}
        return [
            Route(method="PATCH", path=path, handler=self.patch, answers={200: done}, **patched),
            Route(method="DELETE", path=path, handler=self.delete, answers={204: Answer("it is gone")}, **guarded),
            Route(method="POST", path=f"{path}/cancel", handler=self.cancel, answers=obeys, **shared),
            Route(method="POST", path=f"{path}/retry", handler=self.retry, answers={200: done}, **shared),
            Route(method="POST", path=f"{path}/run", handler=self.run, answers={200: done}, **shared),
        ]

    async def patch(self, request: web.Request) -> web.Response:
        """Change a task that is still PENDING; 409 once it is not.

        The body is a JSON merge patch. With If-Match it changes the task as you know it, or answers 412.
        """
        id = task_id(request)  # noqa: A001 — the column's name
        patch = await json_body(request, most=TASK_BYTES)
        fields = read_body(PATCH, patch)
        _refuse_two_times(patch)
        seen = None
        for _ in range(TRIES):
            task = await self._matching(id, request)
            if task.status != Status.PENDING:
                raise Conflict(f"the task is not waiting: it is {task.status}")
            if task.updated_at == seen:  # nobody came between: it is the time that was not taken
                where = "/delay" if "delay" in patch else "/run_at"
                raise invalid([Fault(where, "must end before the task's expires_at: it could never start")])
            seen = task.updated_at
            if not patch or await self._editing.edit(task, _edited(task, patch, fields)):
                changed = await self._store.get(id)
                if changed is None:
                    raise not_found()
                return _shown(changed, caller_of(request))
        raise Conflict("the task is being changed by others: try again")

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a finished task and what is known of its attempts; 409 while it is not finished."""
        id = task_id(request)  # noqa: A001 — the column's name
        for _ in range(TRIES):
            task = await self._matching(id, request)
            if task.status not in FINISHED:
                raise Conflict(f"the task is not finished: it is {task.status}; cancel it first")
            if await self._editing.delete(id, seen=task.updated_at):
                return web.Response(status=204)
        raise Conflict("the task is being changed by others: try again")

    async def _matching(self, id: UUID, request: web.Request) -> Task:  # noqa: A002 — the column's name
        task = await self._store.get(id)
        if task is None:
            raise not_found()
        wanted = [tag.strip() for line in request.headers.getall(hdrs.IF_MATCH, ()) for tag in line.split(",")]
        if wanted and "*" not in wanted and etag(task) not in wanted:
            raise Problem(412, "precondition_failed", "the task has changed since: read it again", headers={"ETag": etag(task)})
        return task

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a task: 200 when it is cancelled, 202 when the worker that holds it must still obey.

        A handler that finishes first wins; one that does not obey is left behind after the cancel grace.
        """
        task = await self._changed(request, self._store.cancel)
        return _shown(task, caller_of(request), status=202 if task.status in HELD else 200)

    async def retry(self, request: web.Request) -> web.Response:
        """Run a finished task again: the same id, PENDING, due now, with a new budget of attempts."""
        return _shown(await self._changed(request, self._store.retry), caller_of(request))

    async def run(self, request: web.Request) -> web.Response:
        """Make a PENDING task due now."""
        return _shown(await self._changed(request, self._store.run_now), caller_of(request))

    async def _changed(self, request: web.Request, change: Callable[[UUID], Awaitable[Task | None]]) -> Task:
        task = await change(task_id(request))
        if task is None:
            raise not_found()
        return task


def _shown(task: Task, caller: Caller, *, status: int = 200) -> web.Response:
    return answer(task_document(task, caller), status=status, headers={"ETag": etag(task)})


def _refuse_two_times(patch: dict[str, Any]) -> None:
    if patch.get("run_at") is not None and patch.get("delay") is not None:
        raise invalid([Fault("/delay", "cannot be combined with run_at: send one of them")])


def _edited(task: Task, patch: dict[str, Any], fields: TaskPatch) -> Edited:
    """The task with the patch put over it."""
    run_at: datetime | None = task.run_at
    delay = None
    if "delay" in patch or "run_at" in patch:
        run_at, delay = fields.run_at, fields.delay or 0.0
    return Edited(
        payload=_merged(task, fields.payload) if "payload" in patch else task.payload,
        priority=fields.priority if "priority" in patch else task.priority,
        run_at=run_at,
        delay=delay,
        max_attempts=fields.max_attempts if "max_attempts" in patch else task.max_attempts,
        timeout=fields.timeout if "timeout" in patch else task.timeout,
        tags=[*fields.tags] if "tags" in patch else task.tags,
    )


def _merged(task: Task, patch: Any) -> str:
    text = orjson.dumps({} if patch is None else merge_patch(orjson.loads(task.payload), patch))
    if len(text) > PAYLOAD_BYTES:
        fault = Fault("/payload", "must be at most 256 KiB of JSON: store large things elsewhere and send a reference")
        raise Problem(413, "too_large", fault.sentence(), faults=[fault])
    return text.decode()


def merge_patch(target: Any, patch: Any) -> Any:
    """``target`` changed by ``patch``, by the rules of RFC 7396 section 2. The depth of both is bounded by the guard of bodies."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
