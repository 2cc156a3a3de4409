"""The two ways to create tasks, and the header that makes a create safe to repeat."""

import asyncio
import hashlib
import re
from typing import Any

import orjson
from aiohttp import web

from taskrunner.api.access import caller_of
from taskrunner.api.bodies import BATCH_BYTES, TASK_BYTES, in_parts, is_long, many_tasks, one_task
from taskrunner.api.creator import Creator
from taskrunner.api.documents import answer, batch_document, created_answer, task_document
from taskrunner.api.errors import Fault, Problem, bad_parameter
from taskrunner.api.requests import INLINE, json_body
from taskrunner.api.routes import Error, Parameter
from taskrunner.api.tracing import in_trace, trace_of
from taskrunner.domain.access import Caller
from taskrunner.domain.errors import BadTask, Conflict
from taskrunner.domain.task import Answer, Created, IdempotencyKey
from taskrunner.store.tasks import Store

HEADER = "Idempotency-Key"
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE = re.compile(r"[!-~]{1,255}")
REPLAYED = {"Idempotent-Replayed": "true"}

IDEMPOTENCY_KEY = Parameter(
    HEADER,
    str,
    "makes it safe to send this again: for a day the same key gets the same answer",
    "header",
    '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
)
IN_FLIGHT = Error(409, "in_flight", "a request with this Idempotency-Key was not answered within 5 seconds")
KEY_REUSED = Error(422, "idempotency_key_reused", "this Idempotency-Key came with another body before")


async def create_task(request: web.Request, *, store: Store, creator: Creator) -> web.Response:
    """201 with the task, once it is committed; 200 with the live one that has its unique key, and ``deduplicated``."""
    body = await json_body(request, most=TASK_BYTES)
    (task,), key = in_trace([one_task(body)], trace_of(request)), await idempotency_key(request, body)
    del body  # while it waits for the database, it needs only what is written
    if key is None and task.unique_key is None:
        created, headers = await creator.create(task), {}
    else:
        answered = await creator.create_keyed(task, key)
        created, headers = answered.created[0], REPLAYED if answered.replayed else {}
    if created.deduplicated:
        existing = await _existing(store, created, caller_of(request))
        return answer(existing, headers={**headers, "Location": f"/api/tasks/{created.id}"})
    return created_answer(task, created, headers)


async def create_tasks(request: web.Request, *, store: Store) -> web.Response:
    """201 with ids and statuses in the order of the array; all of it or nothing."""
    body = await json_body(request, most=BATCH_BYTES)
    key, trace = await idempotency_key(request, body), trace_of(request)
    try:
        if key is None and is_long(body):
            answered = Answer(await store.create_parts(in_trace(part, trace) for part in in_parts(body)))
        elif key is None:
            tasks = in_trace(many_tasks(body), trace)
            answered = Answer(await store.create(tasks) if tasks else [])
        else:
            answered = await store.create_once(in_trace(many_tasks(body), trace), key)
    except BadTask as bad:
        fault = Fault(f"/{bad.index}", f"was refused by the database: {bad}")
        raise Problem(422, "invalid_task", fault.sentence(), faults=[fault]) from None
    return answer(batch_document(answered.created), status=201, headers=REPLAYED if answered.replayed else {})


async def _existing(store: Store, created: Created, caller: Caller) -> dict[str, object]:
    task = await store.get(created.id)
    if task is None:
        raise Conflict("the task with this unique_key was deleted meanwhile: send it again")
    return task_document(task, caller) | {"deduplicated": True}


async def idempotency_key(request: web.Request, body: Any) -> IdempotencyKey | None:
    """The key of a request (draft-ietf-httpapi-idempotency-key-header-07), quoted as the draft has it or bare, with the body's fingerprint.

    It counts for one method and path. Bodies are the same when they are the same JSON, whatever the order and spacing of their members.
    """
    values = request.headers.getall(HEADER, [])
    if not values:
        return None
    text = values[0].strip()
    quoted = _QUOTED.fullmatch(text)
    if len(values) > 1 or not (quoted or (_BARE.fullmatch(text) and '"' not in text)):
        raise bad_parameter(HEADER, 'must be one key of 1 to 255 printable characters, such as "8e03978e-40d5-43dd-bc93-6894a57f9324"')
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    small = (request.content_length or INLINE + 1) <= INLINE
    fingerprint = _fingerprint(body) if small else await asyncio.to_thread(_fingerprint, body)
    return IdempotencyKey(f"{request.method} {request.path} {key}", fingerprint)


def _fingerprint(body: Any) -> bytes:
    return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).digest()
