"""The ``webhook`` task: one HTTP request, signed, to an address that it may reach."""

import re
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal

import aiohttp
import orjson
import structlog
from aiohttp.abc import AbstractResolver
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from yarl import URL

from taskrunner.handlers.address import Network, guarded_sockets
from taskrunner.handlers.signing import webhook_headers
from taskrunner.handlers.text import Line, storable
from taskrunner.kit.trace import TRACEPARENT, current
from taskrunner.sdk import Context, Fail, Handler, Retry, Verdict, task
from taskrunner.sdk.handler import MARK

BODY_LIMIT = 64 * 1024
LONGEST_WAIT = 86_400.0  # seconds that a server may ask us to wait by Retry-After
_KEPT_HEADERS = ("content-type", "location", "etag", "x-request-id")
_TRY_LATER = frozenset((408, 425, 429, 503))  # statuses whose Retry-After counts
_MOVED = frozenset((301, 308))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = frozenset(("host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"))


def _web_url(value: str) -> str:
    url = URL(value)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("must be an absolute http:// or https:// URL")
    if "@" in url.raw_authority:
        raise ValueError("must not hold a user name or password; send an Authorization header instead")
    return value


def _header_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("is not a header name")
    if value.lower() in _OURS or value.lower().startswith(("webhook-", "proxy-")):
        raise ValueError(f"the header {value} is set by taskrunner and cannot be given")
    return value.lower()


class Webhook(BaseModel):
    """Payload of a ``webhook`` task. ``timeout`` is seconds; a body that is left out is not sent, and null is sent as null."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[Line, AfterValidator(_web_url), Field(max_length=8000)]
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] = "POST"
    headers: dict[Annotated[str, AfterValidator(_header_name)], Line] = {}
    body: Any = None
    timeout: float = Field(30, gt=0, allow_inf_nan=False)

    def encoded_body(self) -> bytes | None:
        """The body as JSON, or None when there is none. Raises ``Fail`` for a number that JSON writers here cannot hold."""
        if "body" not in self.model_fields_set:
            return None
        try:
            return orjson.dumps(self.body)
        except TypeError as error:
            raise Fail(f"the body cannot be written as JSON: {error}") from None


def open_session(allow: Sequence[Network], *, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """The HTTP client of all webhooks of a worker. Call it on the running loop and close it there.

    It keeps no cookies (they would travel from one task to another), takes no proxy or password from the environment, and
    dials only public addresses and those in ``allow``.
    """
    connector = aiohttp.TCPConnector(limit=0, resolver=resolver, socket_factory=guarded_sockets(allow))
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("content-type",),  # no body, no type
    )


def webhook_handler(session: aiohttp.ClientSession, keys: Sequence[bytes]) -> Handler:
    """The handler of ``webhook`` tasks, which sends by ``session`` and signs with each of ``keys``."""

    @task("webhook")
    async def webhook(ctx: Context, payload: Webhook) -> dict[str, Any]:
        """Send the request; 2xx is success, and the result holds what came back."""
        return await _deliver(session, keys, ctx, payload)

    handler: Handler = getattr(webhook, MARK)
    return handler


async def _deliver(session: aiohttp.ClientSession, keys: Sequence[bytes], ctx: Context, payload: Webhook) -> dict[str, Any]:
    body = payload.encoded_body()
    seconds = min(payload.timeout, ctx.timeout)
    started = time.monotonic()
    try:
        async with session.request(
            payload.method,
            payload.url,
            data=body,
            headers=_headers(keys, ctx, payload, body),
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            content = await _read_up_to(response.content, BODY_LIMIT + 1)  # leaving the block closes a connection that has more
    except (TimeoutError, aiohttp.ClientError, UnicodeError) as error:
        raise _trouble(error, ctx, payload, seconds) from None  # a traceback would tell the tenant what the wording hides
    text = _text(content)
    if not 200 <= response.status < 300:
        raise _refusal(response, text or "")
    result = {
        "status": response.status,
        "headers": {name: storable(response.headers[name]) for name in _KEPT_HEADERS if name in response.headers},
        "body": text,
        "duration_ms": round((time.monotonic() - started) * 1000),
    }
    return result | {"truncated": True} if len(content) > BODY_LIMIT else result


def _headers(keys: Sequence[bytes], ctx: Context, payload: Webhook, body: bytes | None) -> dict[str, str]:
    headers = {"user-agent": "taskrunner", "accept-encoding": "identity"}
    if body is not None:
        headers["content-type"] = "application/json"
    trace = current() or ctx.traceparent
    if trace is not None and TRACEPARENT.fullmatch(trace):
        headers["traceparent"] = trace
    now = int(time.time())  # noqa: TID251 — the receiver compares it with the time of day
    return headers | payload.headers | webhook_headers(keys, message_id=ctx.task_id, timestamp=now, body=body or b"")


async def _read_up_to(stream: aiohttp.StreamReader, limit: int) -> bytes:
    content = bytearray()
    while len(content) < limit and (chunk := await stream.read(limit - len(content))):
        content += chunk
    return bytes(content)


def _text(content: bytes) -> str | None:
    """At most ``BODY_LIMIT`` bytes as text; None when they are not UTF-8 or hold a NUL, which jsonb cannot store."""
    kept = content[:BODY_LIMIT]
    try:
        text = kept.decode()
    except UnicodeDecodeError as error:
        if len(content) <= BODY_LIMIT or error.start < BODY_LIMIT - 3:
            return None
        text = kept[: error.start].decode()  # the cut went through the last character
    return None if "\0" in text else text


def _trouble(error: Exception, ctx: Context, payload: Webhook, seconds: float) -> Verdict:
    """What no answer means. One wording for refused, blocked and unknown hosts: a tenant must not scan our network by it."""
    host = URL(payload.url).raw_authority
    structlog.get_logger().info("webhook without an answer", task_id=ctx.task_id, reason=storable(str(error)))
    match error:
        case aiohttp.InvalidURL() | UnicodeError():
            return Fail(f"url: {host} is not a host name that can be looked up")
        case aiohttp.ClientSSLError():
            return Retry(f"TLS with {host} failed: {storable(str(error))}")
        case aiohttp.ClientConnectorError():
            return Retry(f"could not connect to {host}: unknown, unreachable, refused, or private and not in TASKRUNNER_WEBHOOK_ALLOW")
        case TimeoutError():
            return Retry(f"{host} did not answer within {seconds:g} seconds")
    return Retry(f"the connection to {host} broke before the whole answer came")


def _refusal(response: aiohttp.ClientResponse, text: str) -> Verdict:
    """What a status other than 2xx means."""
    status = response.status
    reason = f"the server answered {status}" + (f": {text[:200]}" if text else "")
    if 300 <= status < 400:
        reason = f"the server answered {status}; redirects are not followed, so give the final URL"
    if status in _TRY_LATER:
        return Retry(reason, after=_wait(response.headers.get("retry-after", ""), response.headers.get("date", "")))
    return Fail(reason) if status in _MOVED or 400 <= status < 500 else Retry(reason)


def _wait(retry_after: str, date: str) -> float | None:
    """Seconds of a Retry-After header, at most a day; None when it says nothing that we understand.

    An HTTP date counts from the answer's own ``Date``, so that the server's clock need not agree with ours.
    """
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after), LONGEST_WAIT)
    try:
        delay = parsedate_to_datetime(retry_after).timestamp() - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(delay, 0.0), LONGEST_WAIT)
