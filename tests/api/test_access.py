"""Tokens: no route without one once there are any, none with one that is too small, and what is hidden from whom."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import psycopg
import pytest
from aiohttp import ClientTimeout
from api.door import Api, answers, opened, problem, until
from api.tokens import GIVEN, TOKENS, becomes, caller, closed, port_of

from taskrunner.api import access, page, role
from taskrunner.api.openapi import document
from taskrunner.api.routes import Route
from taskrunner.domain.access import IMPLIED, Scope
from taskrunner.domain.errors import ConfigurationError
from taskrunner.settings import Settings
from taskrunner.store import migrate
from taskrunner.store.tasks import open_store
from taskrunner.store.tokens import Tokens

# What anybody may ask for, whatever tokens there are.
PUBLIC = {
    *(("GET", path) for path in page.FILES),
    *(("GET", path) for path in ("/api/openapi.json", "/api/healthz", "/api/livez", "/livez", "/api/readyz", "/readyz")),
    *((method, "/api/session") for method in ("GET", "POST", "DELETE")),
}
NOBODY = "01a20ca8-aabc-7a76-8a58-f035ed8d43d5"


@pytest.fixture
async def shut(dsn: str) -> AsyncIterator[Api]:
    async with closed(dsn) as it:
        yield it


async def table(dsn: str) -> list[Route]:
    async with open_store(dsn, Settings()) as store:
        return role.Rooms(store).routes()


async def send(api: Api, route: Route) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and problem, if it is one, of the least that this route can be asked for."""
    path = route.path.replace("{id}", NOBODY).replace("{session}", NOBODY).replace("{name}", "x")
    async with api.http.request(route.method, path, timeout=ClientTimeout(total=10)) as answer:
        found = await problem(answer) if answer.content_type == "application/problem+json" else {}
        return answer.status, dict(answer.headers), found


async def test_the_public_routes_are_these_and_no_others(dsn: str) -> None:
    async with open_store(dsn, Settings()) as store:
        rooms = role.Rooms(store)
        guarded = {(route.method, route.path) for route in rooms.routes() if route.scope is not None}
        served = {(route.method, route.resource.canonical) for route in rooms.application().router.routes() if route.resource}
    assert {pair for pair in served if pair[0] != "HEAD"} - guarded == PUBLIC


async def test_no_route_lets_a_stranger_in(shut: Api) -> None:
    async with caller(shut, "a-token-that-nobody-ever-made") as liar:
        for route in await table(shut.dsn):
            if route.scope is None:
                continue
            for who, challenge in ((shut, 'Bearer realm="taskrunner"'), (liar, 'Bearer realm="taskrunner", error="invalid_token"')):
                status, headers, found = await send(who, route)
                assert (status, found.get("code"), headers.get("WWW-Authenticate")) == (401, "unauthorized", challenge), route.path


async def test_every_route_wants_its_scope_and_no_more(shut: Api) -> None:
    async with AsyncExitStack() as stack:
        callers = {scope: await stack.enter_async_context(caller(shut, TOKENS[scope])) for scope in Scope}
        for route in await table(shut.dsn):
            if route.scope is None:
                continue
            for scope, who in callers.items():
                status, headers, found = await send(who, route)
                enough = route.scope == scope or route.scope in IMPLIED[scope]
                assert (found.get("code") != "forbidden") == enough, (route.path, scope)
                assert status != 401
                if not enough:
                    assert status == 403
                    assert f"scope {route.scope}" in found["detail"]
                    assert f'scope="{route.scope}"' in headers["WWW-Authenticate"]


async def test_the_document_says_which_scope(dsn: str) -> None:
    routes = await table(dsn)
    paths = document(routes)["paths"]
    for route in routes:
        operation = paths[route.path][route.method.lower()]
        wanted = [] if route.scope is None else [{"token": [route.scope]}, {"session": [route.scope]}]
        assert operation["security"] == wanted
        assert ("401" in operation["responses"]) == (route.scope is not None or (route.path == "/api/session" and route.method == "POST"))


STRANGE = ["Basic abc", "Bearer", "Bearer ", "bearer  x y", "Bearer é\udcff", "x" * 2000]


async def test_a_strange_header_is_no_token(shut: Api) -> None:
    for header in STRANGE:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(shut))
        head = f"GET /api/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {header}\r\n\r\n"
        writer.write(head.encode("utf-8", "surrogateescape"))
        assert b" 401 " in await reader.readline(), header
        writer.close()


async def test_without_tokens_everything_is_open(api: Api) -> None:
    for route in await table(api.dsn):
        status, _, found = await send(api, route)
        assert status not in (401, 403), (route.path, found)


# ── tokens of the database ──


async def made(api: Api, name: str, *words: str, seconds: float | None = None) -> str:
    scopes = [Scope(word) for word in words]
    return (await Tokens(api.store.pool).create(name, scopes, seconds=seconds)).secret


async def test_the_first_token_closes_the_door_and_revoking_it_does_not_open_it(api: Api) -> None:
    async with api.http.get("/api/tasks") as answer:
        assert answer.status == 200
    token = await made(api, "ci", "read")
    await becomes(api, 401, within=access.TTL + 1)
    async with caller(api, token) as known:
        async with known.http.get("/api/tasks") as answer:
            assert answer.status == 200
        async with known.http.post("/api/tasks", json={"task_type": "x"}) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (403, "forbidden")
        assert await Tokens(api.store.pool).revoke("ci")
        await becomes(known, 401, within=access.TTL + 1)
    async with api.http.get("/api/tasks") as answer:
        assert answer.status == 401, "who took a token away did not mean to let everyone in"


async def test_a_revoked_token_is_refused_within_a_second_also_under_load(shut: Api) -> None:
    async with caller(shut, await made(shut, "ci", "read")) as known:
        await becomes(known, 200, within=2)
        async with asyncio.TaskGroup() as group:
            for _ in range(3):  # who asks all the time keeps what is known fresh
                group.create_task(becomes(known, 401, within=10))
            await asyncio.sleep(0.3)
            await Tokens(shut.store.pool).revoke("ci")
            assert await becomes(known, 401, within=access.TTL + 1) <= access.TTL + 0.5


async def test_after_a_pause_a_revoked_token_is_not_let_in_once_more(shut: Api) -> None:
    async with caller(shut, await made(shut, "ci", "read")) as known:
        await becomes(known, 200, within=2)
        await Tokens(shut.store.pool).revoke("ci")
        await asyncio.sleep(access.TTL + 0.1)
        async with known.http.get("/api/tasks") as answer:
            assert answer.status == 401


async def test_a_token_ends_when_it_expires(shut: Api) -> None:
    async with caller(shut, await made(shut, "brief", "read", seconds=0.7)) as known:
        await becomes(known, 200, within=0.5)
        await becomes(known, 401, within=0.7 + access.TTL + 1)


async def test_no_request_pays_a_round_trip_and_none_goes_by_old_knowledge(shut: Api) -> None:
    async with caller(shut, await made(shut, "ci", "read")) as known, caller(shut, TOKENS[Scope.READ]) as given:
        await becomes(known, 200, within=2)
        async with await psycopg.AsyncConnection.connect(shut.dsn) as connection:
            await connection.execute("lock table tokens in access exclusive mode")
            for _ in range(10):
                async with known.http.get("/api/tasks") as answer:
                    assert answer.status == 200
            await becomes(known, 503, within=access.TTL + 3)
            async with known.http.get("/api/tasks") as answer:
                assert (answer.headers["Retry-After"], (await problem(answer))["code"]) == ("1", "unavailable")
            async with given.http.get("/api/tasks") as answer:
                assert answer.status == 200, "those of the settings need no database"
        await becomes(known, 200, within=2)


async def test_only_a_hash_is_kept_and_when_it_was_used(shut: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "TOUCH", 0.0)
    token = await made(shut, "ci", "read")
    ((row,),) = await shut.sql("select to_jsonb(t) from tokens t")
    assert row["last_used_at"] is None
    assert token.split("_", 2)[2] not in json.dumps(row)
    async with caller(shut, token) as known:

        async def noted() -> bool:
            async with known.http.get("/api/tasks"):
                return bool(await shut.sql("select 1 from tokens where last_used_at > created_at"))

        await until(noted)


async def test_a_hash_opens_nothing(shut: Api) -> None:
    token = await made(shut, "ci", "read")
    ((hashed,),) = await shut.sql("select encode(hash, 'hex') from tokens")
    for forged in (hashed, "_".join([*token.split("_", 2)[:2], hashed]), token[:-1], token + "A", token.upper()):
        async with caller(shut, forged) as liar, liar.http.get("/api/tasks") as answer:
            assert answer.status == 401


# ── other machines ──


async def test_an_open_door_is_not_shown_to_other_machines(dsn: str) -> None:
    settings = Settings(http_host="0.0.0.0", http_port=0)
    async with open_store(dsn, settings) as store:
        with pytest.raises(ConfigurationError, match=r"HTTP_HOST 0\.0\.0\.0 .* TASKRUNNER_API_TOKENS, .*TASKRUNNER_INSECURE=1"):
            async with role.serve(settings, store):
                pass
    for allowed in ({"insecure": True}, {"api_tokens": GIVEN}):
        async with opened(dsn, http_host="0.0.0.0", **allowed) as api:
            await until(partial(answers, api.http, "/readyz"))


async def test_a_token_of_the_database_opens_it_to_other_machines(dsn: str) -> None:
    async with open_store(dsn, Settings()) as store:
        token = (await Tokens(store.pool).create("first", [Scope.READ], seconds=None)).secret
    async with opened(dsn, http_host="0.0.0.0") as api:
        await becomes(api, 401, within=5)
        async with caller(api, token) as known:
            await becomes(known, 200, within=2)


async def test_where_nobody_can_tell_whether_there_are_tokens_nobody_is_let_in(empty_dsn: str) -> None:
    async with opened(empty_dsn, http_host="0.0.0.0") as api:
        await becomes(api, 503, within=5)
        await migrate.up(empty_dsn)
        await until(lambda: answers(api.http, "/readyz"))
        async with api.http.get("/api/tasks") as answer:
            assert answer.status == 401


OWN = ["localhost", "localhost:1234", "127.0.0.1:80", "[::1]:80", "10.1.2.3"]
OTHERS = ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example#localhost"]


async def test_a_page_cannot_reach_an_open_service_by_a_name_of_its_own(api: Api) -> None:
    """DNS rebinding: a page's own name leads to this machine, so that its requests are of the same origin."""
    for host in OWN:
        async with api.http.get("/api/tasks", headers={"Host": host}) as answer:
            assert answer.status == 200, host
    for host in OTHERS:
        async with api.http.get("/api/tasks", headers={"Host": host}) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (403, "unknown_host"), host


INSIDE = ["api", "api:8080", "host.docker.internal:8080", "devbox.local"]


async def test_nor_where_the_network_is_trusted_which_has_names_of_its_own(dsn: str) -> None:
    """As in compose: it listens for other machines, and its port is published on this one."""
    async with opened(dsn, http_host="0.0.0.0", insecure=True) as api:
        await until(lambda: answers(api.http, "/readyz"))
        for host in [*OWN, *INSIDE]:
            async with api.http.get("/api/tasks", headers={"Host": host}) as answer:
                assert answer.status == 200, host
        for host in [*OTHERS, "api.", "local.example", "internal.example"]:
            for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}):
                async with api.http.post("/api/tasks", data=b'{"task_type": "x"}', headers=headers) as answer:
                    assert (answer.status, (await problem(answer))["code"]) == (403, "unknown_host"), host
            async with api.http.get("/api/tasks", headers={"Host": host}) as answer:
                assert answer.status == 403, host
        assert await api.sql("select 1 from tasks") == []


async def test_names_that_the_operator_gives_are_answered_to(dsn: str) -> None:
    async with opened(dsn, http_names=("tasks.example",)) as api:
        await until(lambda: answers(api.http, "/readyz"))
        for host, status in (("tasks.example", 200), ("Tasks.Example:8080", 200), ("api", 403), *((host, 403) for host in OTHERS)):
            async with api.http.get("/api/tasks", headers={"Host": host}) as answer:
                assert answer.status == status, host


async def test_with_tokens_any_name_will_do(shut: Api) -> None:
    async with caller(shut, TOKENS[Scope.READ]) as known, known.http.get("/api/tasks", headers={"Host": "tasks.example"}) as answer:
        assert answer.status == 200
