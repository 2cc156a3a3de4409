"""A browser's session: how it begins and ends, and what a page of another site can do with it: nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from http.cookies import SimpleCookie
from typing import Any

import pytest
from aiohttp import ClientSession, CookieJar
from api.door import Api, problem
from api.tokens import TOKENS, becomes, closed, port_of

from taskrunner.api import access
from taskrunner.domain.access import Scope
from taskrunner.store.tokens import Tokens

NOBODY: dict[str, Any] = {"required": True, "name": None, "scopes": []}


@pytest.fixture
async def shut(dsn: str) -> AsyncIterator[Api]:
    async with closed(dsn) as it:
        yield it


@pytest.fixture
async def browser(shut: Api) -> AsyncIterator[ClientSession]:
    """A client that keeps cookies, also those of an address."""
    async with ClientSession(str(shut.http._base_url), cookie_jar=CookieJar(unsafe=True)) as http:
        yield http


async def session(http: ClientSession) -> dict[str, Any]:
    async with http.get("/api/session") as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        return dict(await answer.json())


async def sign_in(http: ClientSession, token: str, **headers: str) -> tuple[int, SimpleCookie]:
    async with http.post("/api/session", json={"token": token}, headers=headers) as answer:
        return answer.status, answer.cookies


async def test_without_tokens_everybody_may_do_everything(api: Api) -> None:
    assert await session(api.http) == {"required": False, "name": None, "scopes": sorted(Scope)}


async def test_signing_in_and_out(browser: ClientSession) -> None:
    assert await session(browser) == NOBODY
    assert (await sign_in(browser, TOKENS[Scope.WRITE]))[0] == 200
    assert await session(browser) == {"required": True, "name": "TASKRUNNER_API_TOKENS, 3", "scopes": ["payloads", "read", "write"]}
    async with browser.post("/api/tasks", json={"task_type": "x"}) as answer:
        assert answer.status == 201
    async with browser.post("/api/queues/x/pause") as answer:
        assert (answer.status, (await problem(answer))["code"]) == (403, "forbidden")
    async with browser.get("/api/events") as answer:
        assert answer.status == 200
    async with browser.delete("/api/session") as answer:
        assert answer.status == 204
    assert await session(browser) == NOBODY
    async with browser.get("/api/tasks") as answer:
        assert answer.status == 401


async def test_a_wrong_token_signs_nobody_in(browser: ClientSession) -> None:
    for token in ("a-token-that-nobody-ever-made", "trk_0123456789ab_" + "x" * 43, "trk_", "é"):
        status, cookies = await sign_in(browser, token)
        assert (status, dict(cookies)) == (401, {}), token
    assert await session(browser) == NOBODY


async def test_a_body_that_is_none_is_refused(browser: ClientSession) -> None:
    for body in ("{}", '{"token": 1}', '{"token": ""}', '{"token": "x", "more": 1}', '"x"', "token=x"):
        async with browser.post("/api/session", data=body) as answer:
            assert answer.status in (400, 422), body
            await problem(answer)


async def test_no_script_and_no_other_site_gets_the_cookie(shut: Api, browser: ClientSession) -> None:
    for scheme, secure in (("http", False), ("https", True)):
        _, cookies = await sign_in(browser, TOKENS[Scope.READ], Origin=f"{scheme}://127.0.0.1:{port_of(shut)}")
        cookie = cookies[access.COOKIE]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"], bool(cookie["secure"])) == (True, "Strict", "/api", secure)
        assert (cookie["domain"], cookie["expires"], cookie["max-age"]) == ("", "", ""), "it ends with the browser"


WRITES = [
    ("POST", "/api/tasks"),
    ("POST", "/api/tasks/batch"),
    ("PATCH", "/api/tasks/01a20ca8-aabc-7a76-8a58-f035ed8d43d5"),
    ("DELETE", "/api/tasks/01a20ca8-aabc-7a76-8a58-f035ed8d43d5"),
    ("POST", "/api/tasks/bulk/cancel"),
    ("POST", "/api/queues/x/pause"),
    ("POST", "/api/session"),
    ("DELETE", "/api/session"),
]


ELSEWHERE = ["https://evil.example", "null", "http://127.0.0.1:1"]


async def test_a_page_of_another_site_changes_nothing_with_it(browser: ClientSession) -> None:
    """SameSite keeps the cookie from most of them; a page on another port of this machine is the same site to a browser."""
    await sign_in(browser, TOKENS[Scope.ADMIN])
    for origin in ELSEWHERE:
        for method, path in WRITES:
            headers = {"Origin": origin, "Sec-Fetch-Site": "same-site"}
            async with browser.request(method, path, headers=headers, data="{}") as answer:
                assert (answer.status, (await problem(answer))["code"]) == (403, "cross_origin"), (origin, path)
        async with browser.get("/api/tasks", headers={"Origin": origin}) as answer:
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")], "it may send this, and read nothing"


async def test_the_header_goes_before_the_cookie(browser: ClientSession) -> None:
    await sign_in(browser, TOKENS[Scope.ADMIN])
    for header in ("Bearer a-token-that-nobody-ever-made", "Basic eDp5"):
        async with browser.get("/api/tasks", headers={"Authorization": header}) as answer:
            assert answer.status == 401


async def test_a_session_ends_with_its_token(shut: Api, browser: ClientSession) -> None:
    tokens = Tokens(shut.store.pool)
    token = (await tokens.create("me", [Scope.READ], seconds=None)).secret
    await sign_in(browser, token)
    assert (await session(browser))["name"] == "me"
    await tokens.revoke("me")
    async with ClientSession(str(shut.http._base_url), cookies={access.COOKIE: token}, cookie_jar=CookieJar(unsafe=True)) as again:
        await becomes(replace(shut, http=again), 401, within=access.TTL + 2)
    assert await session(browser) == NOBODY
