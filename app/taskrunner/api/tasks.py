"""The routes of tasks."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from aiohttp import web

from taskrunner.api.bodies import BATCH_BYTES, TASK_BYTES, many_tasks, one_task
from taskrunner.api.creator import Creator
from taskrunner.api.documents import answer, attempts_document, batch_document, created_document, task_document
from taskrunner.api.errors import Fault, Problem, not_found
from taskrunner.api.listing import list_tasks
from taskrunner.api.requests import json_body, task_id, wait_of
from taskrunner.api.waiting import Hub
from taskrunner.domain.errors import BadTask
from taskrunner.domain.lifecycle import FINISHED, HELD
from taskrunner.domain.task import Task
from taskrunner.store.tasks import Store


class Tasks:
    """Handlers under ``/api/tasks``."""

    def __init__(self, *, store: Store, creator: Creator, hub: Hub) -> None:
        self._store = store
        self._creator = creator
        self._hub = hub

    def routes(self) -> list[web.RouteDef]:
        """Paths and handlers."""
        return [
            web.post("/api/tasks", self.create),
            web.get("/api/tasks", self.page),
            web.post("/api/tasks/batch", self.create_batch),
            web.get("/api/tasks/{id}", self.get),
            web.post("/api/tasks/{id}/cancel", self.cancel),
            web.post("/api/tasks/{id}/retry", self.retry),
            web.post("/api/tasks/{id}/run", self.run),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """201 with the task, once it is committed."""
        task = one_task(await json_body(request, most=TASK_BYTES))
        created = await self._creator.create(task)
        return answer(created_document(task, created), status=201, headers={"Location": f"/api/tasks/{created.id}"})

    async def create_batch(self, request: web.Request) -> web.Response:
        """201 with ids and statuses in the order of the array; all of it or nothing."""
        tasks = many_tasks(await json_body(request, most=BATCH_BYTES))
        try:
            created = await self._store.create(tasks) if tasks else []
        except BadTask as bad:
            fault = Fault(f"/{bad.index}", f"was refused by the database: {bad}")
            raise Problem(422, "invalid_task", fault.sentence(), faults=[fault]) from None
        return answer(batch_document(created), status=201)

    async def page(self, request: web.Request) -> web.Response:
        """A page of tasks, newest first."""
        return await list_tasks(request, self._store)

    async def get(self, request: web.Request) -> web.Response:
        """The task with its failed attempts; with ``wait``, once it is finished or the time is over."""
        id = task_id(request)  # noqa: A001 — the column's name
        seconds, headers = wait_of(request)
        task = await self._store.get(id)
        if task is not None and seconds and task.status not in FINISHED:
            await self._hub.wait(id, seconds)
            task = await self._store.get(id)
        if task is None:
            raise not_found()
        document = task_document(task)
        document["attempts"] = attempts_document(await self._store.attempts(id)) if task.attempt else []
        return answer(document, headers=headers)

    async def cancel(self, request: web.Request) -> web.Response:
        """200 when the task is cancelled, 202 when the worker that holds it must still obey."""
        task = await self._changed(request, self._store.cancel)
        return answer(task_document(task), status=202 if task.status in HELD else 200)

    async def retry(self, request: web.Request) -> web.Response:
        """A finished task, PENDING again."""
        return answer(task_document(await self._changed(request, self._store.retry)))

    async def run(self, request: web.Request) -> web.Response:
        """A pending task, due now."""
        return answer(task_document(await self._changed(request, self._store.run_now)))

    async def _changed(self, request: web.Request, change: Callable[[UUID], Awaitable[Task | None]]) -> Task:
        task = await change(task_id(request))
        if task is None:
            raise not_found()
        return task
