"""The door itself: probes, the page, refusals of the router, a database that is not there."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePosixPath

import psycopg.conninfo
import pytest
from aiohttp import web
from api.door import Api, answers, opened, problem, until

from taskrunner.api.page import FILES
from taskrunner.api.role import serve
from taskrunner.domain.errors import ConfigurationError
from taskrunner.settings import Settings


async def test_health(api: Api) -> None:
    async with api.http.get("/api/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"msg": "service is healthy"})
    for path in ("/livez", "/api/livez", "/readyz", "/api/readyz"):
        assert await answers(api.http, path)


async def test_the_router_refuses_with_problems(api: Api) -> None:
    async with api.http.get("/api/nothing") as answer:
        assert (answer.status, (await problem(answer))["code"]) == (404, "not_found")
    for method, path, allow in [("PUT", "/api/tasks", {"GET", "HEAD", "POST"}), ("DELETE", "/api/stats", {"GET", "HEAD"})]:
        async with api.http.request(method, path) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (405, "method_not_allowed")
            assert set(answer.headers["Allow"].split(",")) == allow


async def test_what_we_did_not_expect_is_500_and_says_nothing_about_us(api: Api) -> None:
    await api.sql("alter table tasks rename column error to mistake")
    async with api.http.get("/api/tasks") as answer:
        document = await problem(answer)
    assert (answer.status, document["code"]) == (500, "internal")
    assert "column" not in await answer.text()
    assert await answers(api.http, "/api/healthz")


async def test_before_the_schema_is_there_calls_are_503_and_then_they_are_not(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("alter table goose_db_version rename to later")
        async with opened(dsn) as api:
            assert await answers(api.http, "/livez")
            assert await answers(api.http, "/api/healthz")
            for method, path in [("GET", "/readyz"), ("POST", "/api/tasks"), ("GET", "/api/tasks"), ("GET", "/api/stats")]:
                async with api.http.request(method, path, json={"task_type": "x"}) as answer:
                    assert (answer.status, (await problem(answer))["code"]) == (503, "unavailable")
                    assert answer.headers["Retry-After"] == "1"
                    assert "schema" in (await answer.json())["error"]
            await connection.execute("alter table later rename to goose_db_version")
            await until(lambda: answers(api.http, "/readyz"))
            await api.create()


async def test_a_schema_that_is_newer_is_served(dsn: str) -> None:
    """By an old API while a new version takes over. Schedulers refuse to start on it: tests/store/test_migrate.py."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("insert into goose_db_version (version_id, is_applied) values (99999, true)")
    async with opened(dsn) as api:
        await until(lambda: answers(api.http, "/readyz"))
        await api.create()


async def test_without_a_database_the_loop_is_alive_and_the_rest_is_503(dsn: str) -> None:
    async with opened(dsn, store_dsn="postgresql://127.0.0.1:1/nothing") as api:
        assert await answers(api.http, "/livez")
        for path in ("/readyz", "/api/healthz"):
            async with api.http.get(path) as answer:
                assert (answer.status, (await problem(answer))["code"]) == (503, "unavailable")


@asynccontextmanager
async def cuttable(dsn: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to the database that breaks, once the event is set, at a statement about ``cut-me``: it arrives, its answer does not."""
    info = psycopg.conninfo.conninfo_to_dict(dsn)
    host, port = str(info.get("host") or "127.0.0.1"), str(info.get("port") or 5432)
    cut = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = (
            asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}") if host.startswith("/") else asyncio.open_connection(host, int(port))
        )
        back, onward = await there

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, asks: bool) -> None:
            while data := await source.read(65_536):
                sink.write(data)
                if asks and cut.is_set() and b"cut-me" in data:
                    writer.transport.abort()
                    return
            sink.close()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, onward, asks=True))
                group.create_task(pump(back, writer, asks=False))
        except* ConnectionError:
            pass
        finally:
            onward.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=server.sockets[0].getsockname()[1]), cut
    finally:
        server.close()


async def test_a_commit_without_an_answer_is_an_unknown_outcome(dsn: str) -> None:
    async with cuttable(dsn) as (way, cut), opened(dsn, store_dsn=way) as api:
        await until(lambda: answers(api.http, "/readyz"))
        await api.create(task_type="cut-me")
        cut.set()
        async with api.http.post("/api/tasks", json={"task_type": "cut-me"}) as answer:
            document = await problem(answer)
        assert (answer.status, document["code"]) == (503, "outcome_unknown")
        cut.clear()
        await api.create()


async def test_a_taken_port_is_one_clear_sentence(api: Api) -> None:
    port = api.http._base_url.port if api.http._base_url else 0
    with pytest.raises(ConfigurationError, match=f"HTTP_PORT {port}"):
        async with serve(Settings(http_port=port), api.store):
            pass


async def test_waits_end_when_the_service_stops(api: Api) -> None:
    task = await api.create(delay=3600)

    async def hub_asks() -> bool:
        return bool(
            await api.sql(
                "select 1 from pg_stat_activity where datname = current_database() and query like %s",
                "%%not exists (select from tasks_live%%",
            )
        )

    async with asyncio.TaskGroup() as group:
        async with serve(Settings(http_port=0, grace=30), api.store) as door:
            await until(lambda: answers(api.http, f"{door.url}/readyz"))
            wait = group.create_task(api.http.get(f"{door.url}/api/tasks/{task['id']}?wait=60"))
            await until(hub_asks)
        async with await wait as answer:
            assert (answer.status, (await answer.json())["status"]) == (200, "PENDING")


PAGES = {"/": ("/ui/main.js", "/style.css", "/views.css"), "/api/docs": ("/api/docs.js", "/api/docs.css")}
KINDS = {".js": "text/javascript", ".css": "text/css"}


async def test_the_page_cannot_run_what_is_injected_into_it(api: Api) -> None:
    for path in FILES:
        async with api.http.get(path) as answer:
            kind = KINDS.get(PurePosixPath(path).suffix, "text/html")
            assert (answer.status, answer.content_type, answer.charset) == (200, kind, "utf-8")
            policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


@pytest.mark.parametrize("page", PAGES)
async def test_the_page_keeps_to_its_policy(api: Api, page: str) -> None:
    """No inline script, style or handler, nothing from elsewhere, and every id that the script asks for exists."""
    text = {}
    for path in (page, *PAGES[page]):
        async with api.http.get(path) as answer:
            text[path] = await answer.text()
    html, script = text[page], text[PAGES[page][0]]
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html)
    links = {url for url in re.findall(r'(?:src|href)="([^"]+)"', html) if not url.startswith(("data:", "#"))}
    assert links - {"/api/openapi.json", "/api/docs"} == set(PAGES[page])
    assert set(re.findall(r'(?:byId|getElementById)\("([\w-]+)"\)', script)) <= set(re.findall(r'id="([\w-]+)"', html))


async def test_no_script_makes_markup_of_text(api: Api) -> None:
    for path in (path for path in FILES if path.endswith(".js")):
        async with api.http.get(path) as answer:
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", await answer.text()), path


async def test_every_route_answers_head_where_it_answers_get(api: Api) -> None:
    task = await api.create()
    for path in ("/", "/livez", "/api/healthz", "/api/stats", "/api/tasks", f"/api/tasks/{task['id']}"):
        async with api.http.head(path) as answer:
            assert answer.status == web.HTTPOk.status_code
            assert await answer.read() == b""
