"""``GET /api/tasks``: filters and pages. A page begins below the last id of the one before, so new tasks never shift it."""

from typing import TypeVar

from aiohttp import web

from taskrunner.api.access import caller_of, need
from taskrunner.api.documents import answer, task_document
from taskrunner.api.filters import Filter, PageQuery, cursor_after, read_query
from taskrunner.domain.access import Scope
from taskrunner.store.tasks import Store

Q = TypeVar("Q", bound=Filter)
COUNTED = 10_000


async def list_tasks(request: web.Request, store: Store) -> web.Response:
    """One page, newest first. One task more than asked for is read: it tells whether there is a next page."""
    asked = _asked(PageQuery, request)
    tasks = await store.list(asked.tasks(limit=asked.limit + 1, before=asked.cursor))
    page = tasks[: asked.limit]
    following = cursor_after(page[-1].id) if len(tasks) > asked.limit else None
    headers, caller = {}, caller_of(request)
    if following is not None:
        url = request.rel_url.update_query(cursor=following)
        headers["Link"] = f'<{url.raw_path_qs}>; rel="next"'
    return answer({"items": [task_document(task, caller) for task in page], "next_cursor": following}, headers=headers)


async def count_tasks(request: web.Request, store: Store) -> web.Response:
    """How many tasks fit, as far as COUNTED. One more is looked for: it tells whether there are more."""
    found = await store.count(_asked(Filter, request).tasks(limit=COUNTED + 1))
    return answer({"count": min(found, COUNTED), "complete": found <= COUNTED})


def _asked(kind: type[Q], request: web.Request) -> Q:
    """What the query asks for. By an error only those may ask who may see errors: it could be guessed."""
    asked = read_query(kind, request.query)
    if asked.error is not None:
        need(Scope.PAYLOADS, caller_of(request))
    return asked
