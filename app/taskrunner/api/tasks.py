"""The routes that create and read tasks."""

import asyncio

from aiohttp import web

from taskrunner.api import shapes
from taskrunner.api.access import caller_of
from taskrunner.api.bodies import TaskBody
from taskrunner.api.creating import IDEMPOTENCY_KEY, IN_FLIGHT, KEY_REUSED, REPLAYED, create_task, create_tasks
from taskrunner.api.creator import Creator
from taskrunner.api.documents import answer, attempts_document, etag, task_document
from taskrunner.api.errors import not_found
from taskrunner.api.filters import Filter, PageQuery, parameters_of
from taskrunner.api.imports import import_tasks, is_stream
from taskrunner.api.listing import count_tasks, list_tasks
from taskrunner.api.reading import Reader
from taskrunner.api.requests import PREFER, WAIT, task_id, wait_of
from taskrunner.api.routes import CONFLICT, INVALID, JSON, NDJSON, NO_TASK, TASK_ID, TOO_SLOW, Answer, Body, Route
from taskrunner.api.waiting import Hub
from taskrunner.domain.access import Scope
from taskrunner.domain.lifecycle import FINISHED
from taskrunner.store.imports import Imports
from taskrunner.store.tasks import Store

EXAMPLE = {"task_type": "email", "payload": {"to": "user@example.com", "message": "Hello"}, "run_at": "2026-11-24T08:25:12Z"}


class Tasks:
    """Handlers under ``/api/tasks``."""

    def __init__(self, *, store: Store, creator: Creator, reader: Reader, hub: Hub) -> None:
        self._store = store
        self._imports = Imports(store)
        self._creator = creator
        self._reader = reader
        self._hub = hub

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        etag_too = {"ETag": "names this state of the task; for If-Match"}
        repeated = dict.fromkeys(REPLAYED, "true where a request with this Idempotency-Key was answered so before")
        located = {"Location": "where the task is", **repeated}
        created = Answer("the task, committed", shapes.Task, headers=located)
        existing = Answer("the live task that has this unique_key", shapes.ExistingTask, headers=located)
        waited = {**etag_too, "Preference-Applied": "where Prefer: wait was heard"}
        return [
            Route(
                method="POST",
                path="/api/tasks",
                handler=self.create,
                group="tasks",
                scope=Scope.WRITE,
                body=Body({JSON: TaskBody}, EXAMPLE),
                parameters=(IDEMPOTENCY_KEY,),
                answers={201: created, 200: existing},
                errors=(INVALID, CONFLICT, IN_FLIGHT, KEY_REUSED),
            ),
            Route(
                method="GET",
                path="/api/tasks",
                handler=self.page,
                group="tasks",
                scope=Scope.READ,
                parameters=parameters_of(PageQuery),
                answers={200: Answer("a page", shapes.TaskPage, headers={"Link": "the next page, if there is one"})},
            ),
            Route(
                method="GET",
                path="/api/tasks/count",
                handler=self.count,
                group="tasks",
                scope=Scope.READ,
                parameters=parameters_of(Filter),
                answers={200: Answer("the count", shapes.Count)},
            ),
            Route(
                method="POST",
                path="/api/tasks/batch",
                handler=self.create_batch,
                group="tasks",
                scope=Scope.WRITE,
                body=Body({JSON: list[TaskBody], NDJSON: str}, [EXAMPLE]),
                parameters=(IDEMPOTENCY_KEY,),
                answers={201: Answer("ids in the order of the body, committed", shapes.Batch, headers=repeated, others={NDJSON: str})},
                errors=(INVALID, TOO_SLOW, CONFLICT, IN_FLIGHT, KEY_REUSED),
            ),
            Route(
                method="GET",
                path="/api/tasks/{id}",
                handler=self.get,
                group="tasks",
                scope=Scope.READ,
                parameters=(TASK_ID, WAIT, PREFER),
                answers={200: Answer("the task", shapes.TaskWithAttempts, headers=waited)},
                errors=(NO_TASK,),
            ),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Create a task: 201, once it is committed; 200 with the live one that has its unique key already.

        With an Idempotency-Key the same request, sent again within 24 hours, gets the first answer again and makes nothing.
        """
        return await create_task(request, store=self._store, creator=self._creator)

    async def create_batch(self, request: web.Request) -> web.StreamResponse:
        """Create many tasks, all or nothing: an array of up to 10,000, or as application/x-ndjson one task a line, any number of lines.

        A bad task is named by its index or its line. The answer to a stream is a stream, in its order, once all is committed.
        """
        if is_stream(request):
            return await import_tasks(request, self._imports)
        return await create_tasks(request, store=self._store)

    async def page(self, request: web.Request) -> web.Response:
        """A page of tasks, newest first."""
        return await list_tasks(request, self._store)

    async def count(self, request: web.Request) -> web.Response:
        """How many tasks fit, counted up to 10,000: what a bulk operation would be about."""
        return await count_tasks(request, self._store)

    async def get(self, request: web.Request) -> web.Response:
        """The task with its failed attempts; with ``wait``, once it is finished or the time is over."""
        id = task_id(request)  # noqa: A001 — the column's name
        seconds, headers = wait_of(request)
        found = await self._reader.get(id)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while found is not None and found.task.status not in FINISHED and loop.time() < until and not self._hub.closed:
            await self._hub.wait(id, until - loop.time())
            found = await self._reader.get(id)
        if found is None:
            raise not_found()
        caller = caller_of(request)
        document = {**task_document(found.task, caller), "attempts": attempts_document(found.attempts, caller)}
        return answer(document, headers={"ETag": etag(found.task), **headers})
