"""What is read from a request: its body, its task's id, how long it wants to wait."""

import asyncio
import re
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from aiohttp import hdrs, web
from pydantic import Field

from taskrunner.api.errors import Problem, bad_parameter
from taskrunner.api.guard import loads
from taskrunner.api.intake import INTAKE
from taskrunner.api.routes import Parameter

LONGEST_WAIT = 60.0
WAIT = Parameter("wait", Annotated[float, Field(ge=0, le=LONGEST_WAIT)], "answer when the task is finished, or after so many seconds")
PREFER = Parameter("Prefer", str, "wait=30 (RFC 7240): the same as a wish; a longer one is shortened", "header")
LINE_BYTES = 1 << 20
INLINE = 64 << 10  # larger bodies are read in a thread, so that the loop goes on

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\b", re.IGNORECASE)


async def json_body(request: web.Request, *, most: int) -> Any:
    """The JSON value in the body, at most ``most`` bytes of it.

    Any Content-Type is taken, because curl calls everything a form, except multipart, which can never be JSON. A body that says it is
    compressed is refused unread.
    """
    refuse_encoded(request)
    if request.headers.get(hdrs.CONTENT_TYPE, "").lower().startswith("multipart/"):
        raise Problem(415, "unsupported_media_type", "the body must be JSON, not a multipart form: send it as application/json")
    body = await request.app[INTAKE].read(request, most)
    return loads(body) if len(body) <= INLINE else await asyncio.to_thread(loads, body)


def refuse_encoded(request: web.Request) -> None:
    """415 for a body that says it is compressed."""
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise Problem(
            415,
            "unsupported_encoding",
            "the body must not be compressed: send it without Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )


def _too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"the body must be at most {most >> 20} MiB")


def task_id(request: web.Request) -> UUID:
    """The id in the path; 400 where it is not a UUID."""
    return path_id(request, "a task")


def path_id(request: web.Request, of: str, name: str = "id") -> UUID:
    """The UUID in the path that is called ``name``; 400 where it is none."""
    text = request.match_info[name]
    if not _UUID.fullmatch(text):
        raise bad_parameter(name, f"must be the UUID of {of}, such as 01890a5d-ac96-774b-bcce-b302099a8057")
    return UUID(text)


def wait_of(request: web.Request) -> tuple[float, dict[str, str]]:
    """How many seconds the client wants to wait for the end of the task, and the headers that confirm a preference.

    ``?wait=`` must be right; ``Prefer: wait=`` (RFC 7240) is only a wish: a longer one is shortened, and the answer says so.
    """
    for name in request.query:
        if name != "wait":
            raise bad_parameter(name[:100], "is not a parameter of this path: it takes wait")
    text = request.query.get("wait")
    if text is not None:
        return _seconds(text), {}
    wish = _WAIT.search(",".join(request.headers.getall("Prefer", ())))
    if wish is None:
        return 0.0, {}
    seconds = min(int(wish[1]), int(LONGEST_WAIT))
    return float(seconds), {"Preference-Applied": f"wait={seconds}"}


def _seconds(text: str) -> float:
    try:
        seconds = float(text) if text.isascii() else -1.0
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise bad_parameter("wait", f"must be a number of seconds from 0 to {LONGEST_WAIT:.0f}")
    return seconds


def refuse_torn(request: web.Request) -> None:
    """400 for a path or a query that is not UTF-8: taken by its letters, it would name what nobody meant."""
    if "%" in request.raw_path or not request.raw_path.isascii():
        try:
            unquote_to_bytes(request.raw_path).decode()
        except UnicodeError:
            raise Problem(400, "invalid_parameter", "the path, with its query, must be UTF-8, percent-encoded") from None


def refuse_strangers(request: web.Request) -> None:
    """403 for a write that another site's page makes in somebody's browser: it can reach services that only its user can reach.

    Browsers name the page's origin in every such request and programs name none (the rule of Go's ``http.CrossOriginProtection``).
    """
    if request.method in (hdrs.METH_GET, hdrs.METH_HEAD):
        return
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or request.headers.get("Sec-Fetch-Site") in ("same-origin", "none"):
        return
    if origin.partition("://")[2] != request.headers.get(hdrs.HOST):
        raise Problem(403, "cross_origin", "a page of another site may not change anything here")
