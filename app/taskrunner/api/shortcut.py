"""The short way of a plain create, the one request that comes by the ten thousand: past router and layers, by the same checks.

It answers what the long way would answer with 201, and failures of the database; everything else it leaves to the long way, as it came.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from aiohttp import hdrs, web

from taskrunner.api.access import Gate
from taskrunner.api.bodies import one_task
from taskrunner.api.creator import Creator
from taskrunner.api.documents import created_answer
from taskrunner.api.errors import Refusals
from taskrunner.api.guard import loads
from taskrunner.api.intake import BODY, Intake
from taskrunner.api.metrics import Requests
from taskrunner.api.requests import INLINE
from taskrunner.domain.access import Scope
from taskrunner.domain.task import NewTask

PATH = "/api/tasks"
# Headers that a create may have without another meaning. With any other the long way knows what to do.
PLAIN = frozenset({"host", "content-type", "content-length", "authorization", "user-agent", "accept", "accept-encoding", "accept-language"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """``take`` is asked first, with every request. ``before`` refuses what the long way's layer refuses."""

    creator: Creator
    gate: Gate
    intake: Intake
    requests: Requests
    refusals: Refusals
    before: Callable[[web.Request], None]

    async def take(self, request: web.Request) -> web.Response | None:
        """The answer, or None: then nothing was done."""
        began = perf_counter()
        if request.method != "POST" or request.raw_path != PATH or not _fits(request):
            return None
        try:
            self.before(request)
            await self.gate.admit(request, Scope.WRITE)
        except Exception:  # noqa: BLE001 — the long way meets it, too, and words it
            return None
        body = request.content.read_nowait()
        task, size = _plain_task(body), len(body)
        if task is None or not self.intake.hold(size):
            request[BODY] = body
            return None
        del body  # while it waits for the database, it needs only what is written
        try:
            created = await self.creator.create(task)
            response = created_answer(task, created)
        except Exception as error:  # noqa: BLE001 — as on the long way
            response = self.refusals.answer(request, error)
        finally:
            self.intake.let_go(size)
        self.requests.observe("POST", PATH, response.status, perf_counter() - began)
        return response


def _fits(request: web.Request) -> bool:
    """Whether all of it is here, and small, and there is nothing about it that a create would have to heed."""
    content = request.content
    return (
        content.is_eof()
        and content.total_bytes <= INLINE
        and all(name.lower() in PLAIN for name in request.headers)
        and not request.headers.get(hdrs.CONTENT_TYPE, "").lower().startswith("multipart/")
    )


def _plain_task(body: bytes) -> NewTask | None:
    try:
        task = one_task(loads(body))
    except Exception:  # noqa: BLE001 — likewise
        return None
    return task if task.unique_key is None else None
