"""A whole service with a shop's tasks in it, and a browser that looks at it."""

import gzip
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from aiohttp import ClientSession
from faults.waiting import until
from playwright.async_api import Browser, ConsoleMessage, Page, Request, ViewportSize, async_playwright
from psycopg.conninfo import make_conninfo

from taskrunner.process import opened
from taskrunner.settings import Settings

CHROMIUM = shutil.which("chromium")
WIDE = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=844)
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")


@dataclass
class Town:
    """The service: where it is, and a client to it."""

    url: str
    http: ClientSession
    scheduler: str

    async def create(self, task_type: str, **fields: Any) -> dict[str, Any]:
        """One task, as the API answered it."""
        async with self.http.post("/api/tasks", json={"task_type": task_type, **fields}) as answer:
            assert answer.status == 201, await answer.text()
            return dict(await answer.json())

    async def create_all(self, tasks: list[dict[str, Any]]) -> list[str]:
        """Their ids."""
        async with self.http.post("/api/tasks/batch", json=tasks) as answer:
            assert answer.status == 201, await answer.text()
            return [item["id"] for item in (await answer.json())["items"]]

    async def task(self, id_: str) -> dict[str, Any]:
        """The task now."""
        async with self.http.get(f"/api/tasks/{id_}") as answer:
            return dict(await answer.json())

    async def finished(self, id_: str) -> dict[str, Any]:
        """The task at its end."""
        async with self.http.get(f"/api/tasks/{id_}?wait=20") as answer:
            return dict(await answer.json())

    async def many(self, **filters: str) -> int:
        """How many tasks match, of at most 500."""
        async with self.http.get("/api/tasks", params={"limit": "500", **filters}) as answer:
            return len((await answer.json())["items"])


@asynccontextmanager
async def town(dsn: str, **settings: Any) -> AsyncIterator[Town]:
    """All three roles in this process, on this database."""
    ours: dict[str, Any] = {"http_port": 0, "scheduler_port": 0, "worker_port": 0, "grace": 1.0, "backoff_base": 0.05, "cancel_grace": 1.0}
    names = {"db_dsn": dsn, "roles": ("api", "scheduler", "worker"), "handlers": ("e2e.shop_tasks",)}
    async with opened(Settings(**{**ours, **names, **settings})) as where, ClientSession(where["api"]) as http:

        async def ready() -> bool:
            async with http.get("/readyz") as answer:
                return answer.status == 200

        await until(ready, within=20, what="the service")
        yield Town(where["api"], http, where["scheduler"])


@asynccontextmanager
async def database(server: str, template: str, name: str) -> AsyncIterator[str]:
    """A copy of the migrated database, for longer than one test."""
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"create database {name} template {template}".encode())
        yield make_conninfo(server, dbname=name)
        await connection.execute(f"drop database {name} with (force)".encode())


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Debian's, without its sandbox: tests may run as root."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        await browser.close()


@dataclass
class Watched:
    """What a page said and asked for that it should not have. ``refusals`` are statuses that a test provokes."""

    host: str
    complaints: list[str] = field(default_factory=list)
    refusals: set[int] = field(default_factory=set)

    def on_console(self, message: ConsoleMessage) -> None:
        refused = _REFUSED.match(message.text)
        if message.type in ("error", "warning") and not (refused and int(refused[1]) in self.refusals):
            self.complaints.append(f"{message.type}: {message.text}")

    def on_request(self, request: Request) -> None:
        if not request.url.startswith((self.host, "data:")):
            self.complaints.append(f"asked {request.url}")


@asynccontextmanager
async def watched(browser: Browser, url: str, **options: Any) -> AsyncIterator[tuple[Page, Watched]]:
    """A page in a browser of its own. At the end it must have said nothing bad and have asked nobody else."""
    context = await browser.new_context(
        **{"viewport": WIDE, "base_url": url, "permissions": ["clipboard-read", "clipboard-write"], **options}
    )
    context.set_default_timeout(20_000)
    seen = Watched(url)
    page = await context.new_page()
    page.on("console", seen.on_console)
    page.on("pageerror", lambda error: seen.complaints.append(f"uncaught: {error}"))
    page.on("request", seen.on_request)
    await page.add_init_script(
        "addEventListener('securitypolicyviolation', (event) => console.error('CSP', event.violatedDirective, event.blockedURI))"
    )
    try:
        yield page, seen
        assert not seen.complaints, "\n".join(seen.complaints)
    finally:
        await context.close()


async def show(page: Page, route: str) -> None:
    """Go to a view, and wait until it shows what it has."""
    await page.goto(f"/#/{route}")
    await page.wait_for_selector("#view > :not(.skeleton)")


def script_bytes(folder: Path) -> int:
    """All modules, compressed as they are served."""
    return sum(len(gzip.compress(path.read_bytes(), mtime=0)) for path in folder.glob("*.js"))
