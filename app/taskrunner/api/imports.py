"""``POST /api/tasks/batch`` as NDJSON: one task a line, any number of lines, flat memory."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import orjson
from aiohttp import StreamReader, hdrs, web

from taskrunner.api.bodies import many_tasks
from taskrunner.api.errors import Fault, Problem, bad_parameter
from taskrunner.api.guard import BadJson, explain, is_plain, loads
from taskrunner.api.requests import LINE_BYTES, refuse_encoded
from taskrunner.api.routes import NDJSON
from taskrunner.api.tracing import in_trace, trace_of
from taskrunner.domain.errors import BadTask
from taskrunner.domain.task import NewTask
from taskrunner.store.imports import Import, Imports

CHUNK_LINES = 2_000
CHUNK_BYTES = 1 << 20
PATIENCE = 5.0  # seconds for the next line
KINDS = (NDJSON, "application/jsonl", "application/x-jsonlines")


def is_stream(request: web.Request) -> bool:
    """Whether the body is lines of JSON."""
    return request.content_type in KINDS


async def import_tasks(request: web.Request, imports: Imports) -> web.StreamResponse:
    """201 with a line for each task, once all of them are committed. A bad line is named by its number, and then nothing is written."""
    refuse_encoded(request)
    if "Idempotency-Key" in request.headers:
        raise bad_parameter("Idempotency-Key", "cannot be used with a stream: give the tasks a unique_key in arrays, or leave it out")
    async with imports.begin() as stream:
        await _gather(request.content, stream, trace_of(request))
        await stream.commit()
        response = web.StreamResponse(status=201, headers={hdrs.CONTENT_TYPE: NDJSON})
        await response.prepare(request)
        async for block in stream.answer():
            await response.write(block)
        await response.write_eof()
        return response


async def _gather(content: StreamReader, stream: Import, trace: str | None) -> None:
    """Read ahead while the database takes what was read before."""
    first = 1
    adding: asyncio.Future[None] | None = None
    try:
        async for lines in _chunks(content):
            tasks = await asyncio.to_thread(_read, lines, first)
            if adding is not None:
                await adding
            adding = asyncio.ensure_future(_add(stream, in_trace(tasks, trace), first))
            first += len(lines)
        if adding is not None:
            await adding
    finally:
        if adding is not None and not adding.done():
            adding.cancel()
            await asyncio.wait([adding])
        if adding is not None and not adding.cancelled():
            adding.exception()  # an earlier line is not why we stopped, or it was raised already


async def _add(stream: Import, tasks: Sequence[NewTask], first: int) -> None:
    try:
        await stream.add(tasks)
    except BadTask as bad:
        raise _at_line(first + bad.index, [Fault("", f"was refused by the database: {bad}")]) from None


async def _chunks(content: StreamReader) -> AsyncIterator[list[bytes]]:
    """Lines, some at a time. Raises Problem when the next one takes too long to come, or is too long."""
    lines: list[bytes] = []
    size = number = 0
    rest = b""
    ended = False
    while not ended:
        try:
            async with asyncio.timeout(PATIENCE):
                while b"\n" not in rest and not ended:
                    block = await content.readany()
                    ended = not block
                    rest += block
                    if len(rest) > LINE_BYTES and b"\n" not in rest:
                        raise Problem(413, "too_large", f"line {number + 1} must be at most {LINE_BYTES >> 20} MiB")
        except TimeoutError:
            raise Problem(408, "too_slow", f"line {number + 1} did not come within {PATIENCE:.0f} seconds: send faster") from None
        *whole, rest = rest.split(b"\n")
        if ended and rest:
            whole.append(rest)
        number += len(whole)
        lines += whole
        size += sum(map(len, whole))
        if lines and (ended or len(lines) >= CHUNK_LINES or size >= CHUNK_BYTES):
            for begin in range(0, len(lines), CHUNK_LINES):
                yield lines[begin : begin + CHUNK_LINES]
            lines, size = [], 0


def _read(lines: Sequence[bytes], first: int) -> Sequence[NewTask]:
    """The tasks of these lines, the first of which has the number ``first``; checked together, and one by one only to find a bad one."""
    values = []
    for number, line in enumerate(lines, first):
        try:
            values.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            bad = explain(line) or BadJson("", f"is not JSON: {error}")
            raise _at_line(number, [Fault(bad.pointer, bad.detail)], status=400, code="invalid_json") from None
    if not is_plain(b"[" + b",".join(lines) + b"]", values):
        for number, line in enumerate(lines, first):
            try:
                loads(line)
            except BadJson as bad:
                raise _at_line(number, [Fault(bad.pointer, bad.detail)], status=400, code="invalid_json") from None
    try:
        tasks = many_tasks(values)
    except Problem as problem:
        index = int(problem.faults[0].pointer.split("/")[1])
        faults = [fault._replace(pointer=fault.pointer[len(str(index)) + 1 :]) for fault in problem.faults]
        theirs = [fault for fault, whole in zip(faults, problem.faults, strict=True) if whole.pointer.split("/")[1] == str(index)]
        raise _at_line(first + index, theirs, status=problem.status, code=problem.code) from None
    for number, task in enumerate(tasks, first):
        if task.unique_key is not None:
            raise _at_line(number, [Fault("/unique_key", "cannot be used in a stream: send the task in an array")])
    return tasks


def _at_line(number: int, faults: Sequence[Fault], *, status: int = 422, code: str = "invalid_task") -> Problem:
    sentence = faults[0].sentence() if faults[0].pointer else f"the task {faults[0].detail}"
    return Problem(status, code, f"line {number}: {sentence}", faults=[fault._replace(line=number) for fault in faults])
