"""What goes into a handler and what comes out: payloads, results, errors. The failure path must not be able to fail.

Used on the worker's loop, in its threads and in its children alike; knows nothing of streams.
"""

import re
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ValidationError

from taskrunner.kit.log import ABOUT
from taskrunner.sdk import Context, Fail, Handler, Retry, Snooze, Verdict
from taskrunner.wire.pb.taskrunner.v1 import Outcome

MOST_RESULT = 1 << 20  # bytes of JSON
MOST_ERROR = 2_000  # characters
MOST_MESSAGE = 500  # characters of progress
MOST_TRACEBACK = 8_192  # bytes

OURS = str(Path(__file__).parent)
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
LONE = re.compile("[\ud800-\udfff\0]")


class Ending(NamedTuple):
    """How one attempt ended. ``delay`` is in seconds; None means the usual backoff."""

    outcome: Outcome
    result: bytes = b""
    error: str = ""
    traceback: str = ""
    delay: float | None = None


def read_payload(handler: Handler, payload: bytes) -> Any:
    """The payload as the handler wants it. Raises Fail when it does not fit: it will not fit the next time either."""
    try:
        return orjson.loads(payload) if handler.payload is None else handler.payload.validate_json(payload)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        said = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'payload'}: {one['msg']}" for one in found[:5])
        more = f" (and {len(found) - 5} more)" if len(found) > 5 else ""
        raise Fail(f"the payload does not fit: {said}{more}") from None
    except orjson.JSONDecodeError as error:
        raise Fail(f"the payload cannot be read as JSON: {error}") from None
    except StopIteration as error:  # it would look like a coroutine that has returned
        raise RuntimeError("a validator of the payload raised StopIteration") from error


def succeeded(value: Any) -> Ending:
    """The ending of a handler that returned ``value``."""
    if value is None:
        return Ending(Outcome.COMPLETED)
    try:
        result = orjson.dumps(value, default=_plain)
        if len(result) > MOST_RESULT:
            raise ValueError(f"it has {len(result):,} bytes of JSON, and {MOST_RESULT:,} is the most")
        if b"\\u0000" in result and NUL.search(result):
            raise ValueError("it contains the character U+0000, which PostgreSQL does not store")
    except Exception as error:  # noqa: BLE001 — the user's own objects are asked for their JSON: anything may come back
        return Ending(Outcome.FAILED, error=clean(f"the handler succeeded, but its result cannot be stored: {_said(error)}", MOST_ERROR))
    return Ending(Outcome.COMPLETED, result)


def failed(error: BaseException) -> Ending:
    """The ending of a handler that raised ``error``."""
    trace = "" if isinstance(error, Verdict) and error.__cause__ is None else _traceback(error)
    match error:
        case Retry():
            return Ending(Outcome.RETRY, b"", clean(_said(error) or "Retry", MOST_ERROR), trace, error.after)
        case Snooze():
            return Ending(Outcome.SNOOZED, delay=error.delay)
        case Fail():
            return Ending(Outcome.FAILED, b"", clean(_said(error) or "Fail", MOST_ERROR), trace)
    said = _said(error)
    return Ending(Outcome.RETRY, b"", clean(f"{type(error).__name__}: {said}" if said else type(error).__name__, MOST_ERROR), trace)


def call_plain(handler: Handler, ctx: Context, payload: bytes) -> Ending:
    """Run a plain function, in the context variables of the caller, and say how it ended."""
    ABOUT.set(ctx)
    try:
        return succeeded(handler.function(ctx, read_payload(handler, payload)))
    except BaseException as error:  # noqa: BLE001 — sys.exit() in a handler ends the attempt, not the worker
        return failed(error)


def clean(text: str, most: int) -> str:
    """``text`` as PostgreSQL can store it: no U+0000, no half of a surrogate pair, at most ``most`` characters."""
    return LONE.sub("\N{REPLACEMENT CHARACTER}", text[:most])


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON")


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 — __str__ is the user's
        return "(its message cannot be shown)"


def _traceback(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and frames.tb_frame.f_code.co_filename.startswith(OURS):
        frames = frames.tb_next  # how we came to call the handler helps nobody
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except BaseException:  # noqa: BLE001 — formatting calls the user's __str__ and __repr__
        return ""
    kept = clean(text, len(text)).encode()[-MOST_TRACEBACK:]
    return kept.decode(errors="ignore")
