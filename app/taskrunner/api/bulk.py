"""Bulk operations: cancel, retry or delete all tasks that fit a filter, in the background."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from aiohttp import web
from pydantic import Field, Strict, TypeAdapter

from taskrunner.api import shapes
from taskrunner.api.documents import answer, moment
from taskrunner.api.errors import Fault, Problem
from taskrunner.api.filters import Filter, invalid, read_body
from taskrunner.api.requests import json_body, path_id
from taskrunner.api.routes import INVALID, JSON, Answer, Body, Error, Parameter, Route
from taskrunner.domain.access import Scope
from taskrunner.domain.errors import TaskrunnerError
from taskrunner.domain.lifecycle import FINISHED, LIVE, Status
from taskrunner.kit.loops import every
from taskrunner.store.bulk import BulkOperation, Bulks

MOST_BYTES = 1 << 20
LOOK = 5.0  # seconds until work is found that another process left
EXAMPLE = {"status": ["FAILED"], "task_type": "email", "created_after": "2026-11-24T08:00:00Z"}
BULK_ID = Parameter("id", UUID, "the operation", "path", "01a20ca8-aabc-7a76-8a58-f035ed8d43d5")
NO_BULK = Error(404, "not_found", "no such operation: it never was, or ended more than a week ago")

MEANT = {"cancel": LIVE, "retry": FINISHED, "delete": FINISHED}
UNSAID = {"cancel": tuple(LIVE), "retry": (Status.FAILED, Status.CANCELLED), "delete": tuple(FINISHED)}


class BulkBody(Filter):
    """The filter of a bulk operation. At least one field is needed, so that nobody means everything by accident; or ``all``."""

    all: Annotated[bool, Strict()] = Field(default=False, description="true: all tasks, where no filter is given")


BODY: TypeAdapter[BulkBody] = TypeAdapter(BulkBody)


class Bulk:
    """Handlers of bulk operations, and the loop that does them. Somebody must :meth:`run` it."""

    def __init__(self, bulks: Bulks) -> None:
        self._bulks = bulks
        self._wake = asyncio.Event()

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        begun = Answer("the operation, written down", shapes.Bulk, headers={"Location": "where its progress is"})
        verbs = {
            "cancel": "Cancel all tasks that fit: those that wait at once, those that run by telling their workers.",
            "retry": "Run all tasks again that fit: FAILED and CANCELLED ones, unless status says COMPLETED.",
            "delete": "Delete all finished tasks that fit.",
        }
        return [
            *(
                Route(
                    method="POST",
                    path=f"/api/tasks/bulk/{verb}",
                    handler=self._begin(verb),
                    group="bulk",
                    scope=Scope.WRITE,
                    body=Body({JSON: BulkBody}, EXAMPLE if verb != "cancel" else {"queue": "mail"}),
                    answers={202: begun},
                    errors=(INVALID,),
                    about=f"{about}\nDone in the background, in batches, also after a restart. What is made, or ends, later is not meant.",
                )
                for verb, about in verbs.items()
            ),
            Route(
                method="GET",
                path="/api/bulk/{id}",
                handler=self.get,
                group="bulk",
                scope=Scope.READ,
                parameters=(BULK_ID,),
                answers={200: Answer("the operation so far", shapes.Bulk)},
                errors=(NO_BULK,),
            ),
        ]

    def _begin(self, verb: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def begin(request: web.Request) -> web.Response:
            body = read_body(BODY, await json_body(request, most=MOST_BYTES))
            operation = await self._bulks.begin(verb, _meant(verb, body).tasks())
            self._wake.set()
            return answer(_document(operation), status=202, headers={"Location": f"/api/bulk/{operation.id}"})

        return begin

    async def get(self, request: web.Request) -> web.Response:
        """How far a bulk operation is."""
        operation = await self._bulks.get(path_id(request, "an operation"))
        if operation is None:
            raise Problem(404, NO_BULK.code, "there is no bulk operation with this id: it never was, or ended more than a week ago")
        return answer(_document(operation))

    async def run(self) -> None:
        """Do what is written down, for ever."""
        await every("bulk operations", LOOK, self.run_once, wake=self._wake, expected=(TaskrunnerError,))

    async def run_once(self) -> None:
        """Batch after batch, until there is nothing to do for now."""
        while await self._bulks.run_once():
            pass


def _meant(verb: str, body: BulkBody) -> Filter:
    given = body.model_dump(exclude={"all"}, exclude_defaults=True)
    if not given and not body.all:
        raise invalid([Fault("", 'must have at least one filter, or "all": true')])
    if given and body.all:
        raise invalid([Fault("/all", "cannot be combined with a filter: leave one of them out")])
    strange = [status for status in body.status if status not in MEANT[verb]]
    if strange:
        raise invalid([Fault("/status", f"has {strange[0]}, of which no task can be meant by {verb}")])
    return body if body.status else body.model_copy(update={"status": UNSAID[verb]})


def _document(operation: BulkOperation) -> dict[str, Any]:
    return {
        "id": operation.id,
        "verb": operation.verb,
        "status": operation.status,
        "matched": operation.matched,
        "done": operation.done,
        "failed": operation.failed,
        "error": operation.error,
        "created_at": moment(operation.created_at),
        "finished_at": None if operation.finished_at is None else moment(operation.finished_at),
    }
