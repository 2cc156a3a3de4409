"""Who may see what: tokens, a scope that only reads, payloads that are hidden, pages of other sites (F47)."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from e2e.town import Town, database, show, town, watched
from playwright.async_api import Browser, Page, expect

from taskrunner.store.embedded import Embedded

pytestmark = pytest.mark.asyncio(loop_scope="session")
ALL, READ, SEES = ("all-of-it-" * 4, "only-looks-" * 4, "sees-more-" * 4)
CHANGES = re.compile(r"\b(Retry|Cancel|Delete|Run now|Reschedule|Pause|Resume|Drain)\b")
SECRET = "the-secret-of-the-payload"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def closed(postgres: Embedded, template: str) -> AsyncIterator[Town]:
    """A service with tokens."""
    tokens = (ALL, f"read:{READ}", f"read+payloads:{SEES}")
    async with (
        database(postgres.dsn, template, f"e2e_{uuid4().hex}") as dsn,
        town(dsn, api_tokens=tokens) as it,
        ClientSession(it.url, headers={"Authorization": f"Bearer {ALL}"}) as http,
    ):
        yield Town(it.url, http, it.scheduler)


async def sign_in(page: Page, token: str) -> None:
    await page.goto("/")
    await expect(page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    await page.get_by_label("API token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


async def test_nothing_is_shown_before_a_token_is_good(browser: Browser, closed: Town) -> None:
    made = await closed.create("quick", payload={"word": SECRET})
    async with watched(browser, closed.url) as (page, seen):
        seen.refusals.add(401)
        await page.goto(f"/#/tasks/{made['id']}")
        await expect(page.get_by_label("API token")).to_be_focused()
        await expect(page.locator("#nav a")).to_have_count(0)
        await sign_in(page, "not-a-token-at-all")
        await expect(page.get_by_role("alert")).to_contain_text("not known here")
        await page.goto(f"/#/tasks/{made['id']}")
        await page.get_by_label("API token").fill(ALL)
        await page.keyboard.press("Enter")
        await expect(page.locator("#view")).to_contain_text(SECRET)
        assert ALL not in await page.evaluate("document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
        await expect(page.get_by_text("Live", exact=True)).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("API token")).to_be_visible()
        await expect(page.locator("#view")).not_to_contain_text(SECRET)


async def test_a_token_that_only_looks_is_shown_no_payload_and_no_way_to_change(browser: Browser, closed: Town) -> None:
    made = await closed.create("charge-card", payload={"order": 23, "word": SECRET})
    waits = await closed.create("quick", delay=3600)
    await closed.finished(made["id"])
    async with watched(browser, closed.url) as (page, _):
        await sign_in(page, READ)
        await expect(page.get_by_text("Read only")).to_be_visible()
        await expect(page.get_by_role("link", name="New task")).to_have_count(0)
        for route in ("tasks", "errors", "queues", "types", "workers", f"tasks/{made['id']}", f"tasks/{waits['id']}", "overview"):
            await show(page, route)
            text = await page.locator("#view").inner_text()
            assert SECRET not in text
            assert "insufficient_funds" not in text
            assert await page.locator("#view input[type=checkbox]").count() == 0
            assert await page.locator("#view button").filter(has_text=CHANGES).count() == 0
        await show(page, f"tasks/{made['id']}")
        await expect(page.get_by_text("The payload is hidden")).to_be_visible()


async def test_a_token_that_sees_payloads_may_still_not_change(browser: Browser, closed: Town) -> None:
    made = await closed.create("quick", payload={"word": SECRET})
    async with watched(browser, closed.url) as (page, _):
        await sign_in(page, SEES)
        await show(page, f"tasks/{made['id']}")
        await expect(page.locator("#view")).to_contain_text(SECRET)
        await expect(page.get_by_role("button", name="Delete")).to_have_count(0)
        await expect(page.get_by_text("Read only")).to_be_visible()


@asynccontextmanager
async def elsewhere(target: str) -> AsyncIterator[str]:
    """A page of another site that wants to change something at ours."""
    page = f"""<!doctype html><title>elsewhere</title><form method="post" action="{target}/api/tasks" enctype="text/plain">
    <input name='{{"task_type": "stolen", "payload": "' value='"}}'></form>"""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    application = web.Application()
    application.router.add_get("/", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("open_", [True, False])
async def test_a_page_of_another_site_can_change_nothing(browser: Browser, shop: Town, closed: Town, open_: bool) -> None:
    ours = shop if open_ else closed
    context = await browser.new_context(base_url=ours.url)
    try:
        page = await context.new_page()
        if not open_:
            await sign_in(page, ALL)
            await expect(page.get_by_role("link", name="New task")).to_be_visible()
        async with elsewhere(ours.url) as site:
            await page.goto(site)
            await page.evaluate(
                """async (target) => {
                  const body = JSON.stringify({task_type: "stolen"});
                  for (const options of [{mode: "no-cors"}, {mode: "cors"}, {mode: "no-cors", credentials: "include"}])
                    await fetch(`${target}/api/tasks`, {method: "POST", body, ...options}).catch(() => {});
                  navigator.sendBeacon(`${target}/api/tasks`, body);
                }""",
                ours.url,
            )
            async with page.expect_response("**/api/tasks") as response:
                await page.evaluate("document.forms[0].submit()")
            assert (await response.value).status in (401, 403)
        await asyncio.sleep(0.2)  # what is sent as a beacon arrives on its own
        assert await ours.many(task_type="stolen") == 0
    finally:
        await context.close()
