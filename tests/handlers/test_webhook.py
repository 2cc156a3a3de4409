"""The webhook task against real servers on loopback."""

import asyncio
import base64
import ssl
from email.utils import formatdate

import orjson
import pytest
import trustme
from aiohttp import web
from handlers.sinks import Listen, Run, Serve, make_context
from pydantic import ValidationError
from standardwebhooks import Webhook

from taskrunner.handlers.webhook import BODY_LIMIT
from taskrunner.sdk import Fail, Retry

SECRETS = ["whsec_" + base64.b64encode(letter * 32).decode() for letter in (b"a", b"b")]


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {"method": request.method, "headers": {k.lower(): v for k, v in request.headers.items()}, "body": (await request.read()).decode()}
    )


async def test_a_signed_json_request_that_the_library_verifies(run: Run, serve: Serve) -> None:
    url, ctx = await serve(echo), make_context()
    result = await run("webhook", {"url": url + "/hook?x=1", "body": {"n": 1, "s": "é"}}, ctx, webhook_secret=" ".join(SECRETS))
    assert result["status"] == 200
    assert result["headers"] == {"content-type": "application/json; charset=utf-8"}
    assert 0 <= result["duration_ms"] < 10_000
    assert "truncated" not in result
    seen = orjson.loads(result["body"])
    assert seen["method"] == "POST"
    assert seen["headers"]["content-type"] == "application/json"
    assert seen["headers"]["webhook-id"] == ctx.task_id
    for secret in SECRETS:
        assert Webhook(secret).verify(seen["body"], seen["headers"]) == {"n": 1, "s": "é"}


async def test_an_absent_body_is_not_sent_and_null_is_null(run: Run, serve: Serve) -> None:
    url = await serve(echo)
    for payload, body, kind in (({}, "", None), ({"body": None}, "null", "application/json"), ({"body": "x"}, '"x"', "application/json")):
        seen = orjson.loads((await run("webhook", {"url": url, **payload}))["body"])
        assert (seen["body"], seen["headers"].get("content-type")) == (body, kind)
        assert "webhook-signature" not in seen["headers"]


async def test_method_and_headers_are_the_users(run: Run, serve: Serve) -> None:
    payload = {
        "url": await serve(echo),
        "method": "PUT",
        "headers": {"Content-Type": "application/cloudevents+json", "User-Agent": "me", "X-Name": "é"},
    }
    seen = orjson.loads((await run("webhook", {**payload, "body": 1}))["body"])
    assert seen["method"] == "PUT"
    assert seen["headers"]["content-type"] == "application/cloudevents+json"
    assert seen["headers"]["user-agent"] == "me"
    assert seen["headers"]["x-name"] == "é"


TAKEN = "Host content-length Transfer-Encoding Connection Upgrade Expect TE Webhook-Id webhook-signature WEBHOOK-X Proxy-Authorization"
CONTROLS = "\r\n\t\0\x0b\x0c\x1b\x1c\x7f\x85\u2028\u2029"


@pytest.mark.parametrize("name", [*TAKEN.split(), "", "a b", "a:", "a\r\nb", "é"])
async def test_header_names_that_would_change_the_message_are_refused(run: Run, name: str) -> None:
    with pytest.raises(ValidationError, match=r"is not a header name|is set by taskrunner"):
        await run("webhook", {"url": "http://127.0.0.1:1/", "headers": {name: "x"}})


@pytest.mark.parametrize("control", CONTROLS)
async def test_control_characters_in_a_header_or_url_are_refused(run: Run, control: str) -> None:
    for payload in ({"url": "http://127.0.0.1:1/", "headers": {"x": f"a{control}b: c"}}, {"url": f"http://127.0.0.1:1/{control}"}):
        with pytest.raises(ValidationError, match="must not hold control characters"):
            await run("webhook", payload)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "G T", "post", "", "GET / HTTP/1.1\r\n"])
async def test_other_methods_are_refused(run: Run, method: str) -> None:
    with pytest.raises(ValidationError, match="method"):
        await run("webhook", {"url": "http://127.0.0.1:1/", "method": method})


@pytest.mark.parametrize(
    "change", [{"timeout": 0}, {"timeout": float("inf")}, {"timeout": "x"}, {"verify": False}, {"url": 5}, {"url": "http://h:99999/"}]
)
async def test_a_payload_that_does_not_fit_is_refused(run: Run, change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        await run("webhook", {"url": "http://127.0.0.1:1/", **change})


async def test_a_number_that_json_cannot_hold_fails_for_good(run: Run) -> None:
    with pytest.raises(Fail, match="cannot be written as JSON"):
        await run("webhook", {"url": "http://127.0.0.1:1/", "body": 2**70})


RETRIED = [408, 425, 429, 500, 502, 503, 504, 302, 303, 307, 300, 304]
FINAL = [400, 401, 403, 404, 405, 409, 410, 413, 422, 451, 301, 308]


@pytest.mark.parametrize(("status", "verdict"), [(status, Retry) for status in RETRIED] + [(status, Fail) for status in FINAL])
async def test_a_status_decides_what_is_next(run: Run, serve: Serve, status: int, verdict: type[Exception]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=None if status == 304 else "because " + "x" * 1000, headers={"retry-after": "7"})

    with pytest.raises(verdict, match=rf"^the server answered {status}") as caught:
        await run("webhook", {"url": await serve(answer)})
    assert len(str(caught.value)) < 300
    if isinstance(caught.value, Retry):
        assert caught.value.after == (7 if status in (408, 425, 429, 503) else None)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
async def test_every_2xx_is_success(run: Run, serve: Serve, status: int) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(
            status=status, headers={"Location": "/made/1", "ETag": '"v1"', "X-Request-Id": "r", "Set-Cookie": "a=b", "X-Secret": "s"}
        )

    result = await run("webhook", {"url": await serve(answer)})
    assert result["status"] == status
    assert {k: v for k, v in result["headers"].items() if k != "content-type"} == {
        "location": "/made/1",
        "etag": '"v1"',
        "x-request-id": "r",
    }


@pytest.mark.parametrize(
    ("value", "after"),
    [
        *(("0", 0), ("120", 120), ("86400", 86400), ("86401", 86400), ("9" * 5000, 86400)),
        *((text, None) for text in ("-1", "1.5", "soon", "", "١", "Sun, 31 Feb 2030 00:00:00 GMT", "Fri, 31 Dec 99999999 23:59:59 GMT")),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0),
    ],
)
async def test_retry_after_is_obeyed_up_to_a_day(run: Run, serve: Serve, value: str, after: float | None) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": value})

    with pytest.raises(Retry) as caught:
        await run("webhook", {"url": await serve(answer)})
    assert caught.value.after == after


async def test_a_retry_after_date_counts_from_the_servers_own_clock(run: Run, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        slow = 1_700_000_000  # years behind ours
        return web.Response(status=429, headers={"Date": formatdate(slow, usegmt=True), "Retry-After": formatdate(slow + 90, usegmt=True)})

    with pytest.raises(Retry) as caught:
        await run("webhook", {"url": await serve(answer)})
    assert caught.value.after == 90


async def test_redirects_are_not_followed(run: Run, serve: Serve) -> None:
    came = []

    async def inner(request: web.Request) -> web.Response:
        came.append(request.path)
        return web.Response()

    target = await serve(inner)
    for status in (301, 302, 303, 307, 308):

        async def answer(request: web.Request, status: int = status) -> web.Response:
            return web.Response(status=status, headers={"Location": target})

        with pytest.raises((Fail, Retry), match="redirects are not followed"):
            await run("webhook", {"url": await serve(answer)})
    assert came == []


@pytest.mark.parametrize(
    ("content", "text", "truncated"),
    [
        (b"", "", False),
        (b"x" * BODY_LIMIT, "x" * BODY_LIMIT, False),
        (b"x" * (BODY_LIMIT + 1), "x" * BODY_LIMIT, True),
        (b"x" * (BODY_LIMIT - 1) + "é".encode(), "x" * (BODY_LIMIT - 1), True),
        (b"x" * (BODY_LIMIT - 3) + "𝄞".encode(), "x" * (BODY_LIMIT - 3), True),
        (b"\xff\xfe", None, False),
        (b"x" * (BODY_LIMIT - 1) + b"\xc3", None, False),
        (b"\xff" + b"x" * BODY_LIMIT, None, True),
        (b"a\0b", None, False),
    ],
)
async def test_the_result_keeps_at_most_64_kib_of_text(run: Run, serve: Serve, content: bytes, text: str | None, truncated: bool) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=content)

    result = await run("webhook", {"url": await serve(answer)})
    assert result["body"] == text
    assert result.get("truncated", False) is truncated


async def test_an_endless_body_is_cut_off(run: Run, serve: Serve) -> None:
    hung_up = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 10_000)
        except (ConnectionError, asyncio.CancelledError):
            hung_up.set()
            raise

    result = await run("webhook", {"url": await serve(answer)})
    assert (len(result["body"]), result["truncated"]) == (BODY_LIMIT, True)
    async with asyncio.timeout(5):
        await hung_up.wait()


async def test_a_compressed_answer_is_not_asked_for_and_not_unpacked(run: Run, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["accept-encoding"] == "identity"
        return web.Response(body=b"\x1f\x8bbomb", headers={"Content-Encoding": "gzip"})

    assert (await run("webhook", {"url": await serve(answer)}))["body"] is None


async def test_foreign_bytes_in_headers_do_not_reach_the_result(run: Run, listen: Listen) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nETag: a\xff\xfe\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    assert (await run("webhook", {"url": f"http://127.0.0.1:{await listen(answer)}/"}))["headers"] == {"etag": "a??"}


async def test_a_slow_server_is_left_after_the_timeout_or_the_attempts_own_if_that_is_shorter(run: Run, serve: Serve) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)  # the head comes at once, the body never
        await asyncio.Event().wait()
        return response

    url = await serve(answer)
    for payload, ctx in (({"timeout": 0.2}, make_context()), ({}, make_context(timeout=0.2))):
        with pytest.raises(Retry, match=r"did not answer within 0\.2 seconds"):
            await run("webhook", {"url": url, **payload}, ctx)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000],
)
async def test_a_broken_answer_is_retried(run: Run, listen: Listen, answer: bytes) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    with pytest.raises(Retry, match="broke before the whole answer came"):
        await run("webhook", {"url": f"http://127.0.0.1:{await listen(break_off)}/"})


async def test_a_certificate_that_nobody_vouches_for_is_refused(run: Run) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1", ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Retry, match=rf"TLS with 127\.0\.0\.1:{port} failed: .*certificate"):
            await run("webhook", {"url": f"https://127.0.0.1:{port}/"})


async def test_cookies_do_not_travel_from_task_to_task(run: Run, serve: Serve) -> None:
    cookies = []

    async def answer(request: web.Request) -> web.Response:
        cookies.append(request.headers.get("cookie"))
        return web.Response(headers={"Set-Cookie": "session=secret"})

    url = (await serve(answer)).replace("127.0.0.1", "localhost")
    for _ in range(2):
        await run("webhook", {"url": url})
    assert cookies == [None, None]


async def test_no_proxy_is_taken_from_the_environment(run: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxied = []

    async def proxy(request: web.Request) -> web.Response:
        proxied.append(request.path)
        return web.Response()

    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, await serve(proxy))
    assert (await run("webhook", {"url": await serve(echo)}))["status"] == 200
    assert proxied == []
