"""Every view opens, says nothing bad, asks nobody else, and can be used by everyone."""

import asyncio
import json
import re
from pathlib import Path
from uuid import uuid4

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]  # it comes without types
from e2e.town import PHONE, WIDE, Town, database, script_bytes, show, town, watched
from playwright.async_api import Browser, Page, expect

import taskrunner
from taskrunner.api.page import FILES
from taskrunner.store.embedded import Embedded

pytestmark = pytest.mark.asyncio(loop_scope="session")

STATIC = Path(taskrunner.__file__).parent / "api" / "static"
VIEWS = {
    "overview": "Overview",
    "tasks": "Tasks",
    "tasks?status=FAILED": "Tasks",
    "errors": "Errors",
    "queues": "Queues",
    "types": "Types",
    "workers": "Workers",
    "new": "New task",
}
LOOKS = {
    "light": {"color_scheme": "light", "viewport": WIDE},
    "dark": {"color_scheme": "dark", "viewport": WIDE},
    "phone": {"color_scheme": "light", "viewport": PHONE},
}
# In the dark only colours differ, on a phone also what is hidden.
RULES: dict[str, tuple[str, ...]] = {
    "light": (),
    "dark": ("color-contrast",),
    "phone": ("target-size", "scrollable-region-focusable", "aria-hidden-focus"),
}
CUT = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)"
SERIOUS = ("serious", "critical")
MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>\'"&lt;b&gt;'


async def accessible(page: Page, *rules: str) -> None:
    """No serious finding of axe, by all of its rules unless some are named."""
    found = await Axe().run(page, options={"runOnly": list(rules)} if rules else None)
    bad = [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found.response["violations"] if one["impact"] in SERIOUS]
    assert bad == []


@pytest.mark.parametrize("look", LOOKS)
async def test_every_view_is_there_for_everyone(browser: Browser, shop: Town, look: str) -> None:
    failed = (await (await shop.http.get("/api/tasks?status=FAILED&limit=1")).json())["items"][0]
    async with watched(browser, shop.url, **LOOKS[look]) as (page, _):
        for route, title in {**VIEWS, f"tasks/{failed['id']}": failed["task_type"]}.items():
            await show(page, route)
            await expect(page.locator("h1")).to_have_text(title)
            await accessible(page, *RULES[look])
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{route} is wider than the screen"
            assert await page.evaluate(CUT) == [], f"{route} has tables whose last columns are off the screen"


async def test_a_phone_shows_what_is_scheduled_in_a_queue(browser: Browser, shop: Town) -> None:
    async with watched(browser, shop.url, viewport=PHONE) as (page, _):
        await show(page, "queues")
        await expect(page.locator("tr", has_text="a-queue.that-has").locator("td[data-label=Scheduled]")).to_be_visible()


async def test_the_overview_says_how_it_goes(page: Page) -> None:
    await show(page, "overview")
    await expect(page.get_by_role("img", name="Throughput in the last hour")).to_be_visible()
    await expect(page.get_by_role("img", name="Start latency in the last hour")).to_be_visible()
    await expect(page.get_by_role("img", name="Ready tasks: now")).to_be_visible()
    await expect(page.locator(".tile", has_text="Failed").locator(".figure")).not_to_have_text("0")
    await expect(page.locator(".lead")).to_contain_text(re.compile(r"^No worker serves nobodys.*\. \d+ tasks failed in the last hour\. $"))
    await expect(page.locator(".tile", has_text="Start latency")).to_contain_text("in 1 h")
    assert await page.locator("th").evaluate_all("(all) => all.every((one) => getComputedStyle(one).display === 'table-cell')")
    await page.get_by_role("img", name="Throughput").focus()
    await page.keyboard.press("ArrowLeft")
    await expect(page.locator("#tip")).to_contain_text("Completed")
    await page.get_by_role("button", name="24 h").click()
    await expect(page).to_have_url(re.compile(r"#/overview\?span=86400$"))
    await expect(page.get_by_role("img", name="Throughput in the last 24 hours")).to_be_visible()


LEAD = """async (state) => {
  const { lead } = await import("/ui/figures.js");
  const text = document.createElement("p");
  text.append(...[lead({ workers: [{ status: "LIVE", task_types: ["a", "b"] }], span: "3600", ...state })].flat(9));
  return text.textContent.trim();
}"""


def _lot(name: str, oldest: float | None = None, *, paused: bool = False) -> dict[str, object]:
    return {"name": name, "ready": 0 if oldest is None else 7, "oldest_ready_age": oldest, "paused": paused}


@pytest.mark.parametrize(
    ("queues", "types", "failed", "says"),
    [
        ([_lot("q", 5)], [_lot("a", 5)], 0, "All is well."),
        ([_lot("q", 5)], [_lot("a", 5)], 1, "1 task failed in the last hour."),
        ([_lot("q", 90), _lot("r", 900, paused=True)], [_lot("a", 900)], 3, "The oldest ready task waits for 1 min 30 s. 1 queue paused."),
        (
            [_lot("r", 900, paused=True)],
            [_lot("a", 900), _lot("b", paused=True)],
            3,
            "1 queue and 1 type paused. 3 tasks failed in the last hour.",
        ),
        ([_lot("q", 900)], [_lot("a", 5), _lot("c", 900), _lot("d", 9)], 0, "No worker serves c and 1 more type."),
    ],
)
async def test_the_overview_begins_with_what_is_not_well(page: Page, queues: object, types: object, failed: int, says: str) -> None:
    await show(page, "workers")
    assert await page.evaluate(LEAD, {"queues": queues, "types": types, "stats": {"totals": {"failed": failed}}}) == says


AXIS = """async (most) => {
  const [{ columns }, { compact }] = await Promise.all([import("/ui/chart.js"), import("/ui/format.js")]);
  const series = [{ key: "n", name: "n", kind: "running" }];
  const chart = columns({ points: [{ at: "2026-01-01T00:00:00Z", n: most }], series, show: compact, width: 400, height: 200, label: "n" });
  return [...chart.querySelectorAll("text[text-anchor=end]")].map((text) => text.textContent);
}"""


async def test_an_axis_says_how_much_its_rules_stand_for(page: Page) -> None:
    """Half of one task is not one task."""
    await show(page, "overview")
    for most in (0, 1, 3, 5, 12, 25, 99, 101, 2_500):
        half, top = (int(word.replace(",", "")) for word in await page.evaluate(AXIS, most))
        assert top == 2 * half >= most


async def test_markup_is_text_wherever_a_task_may_say_something(page: Page, shop: Town) -> None:
    word = MARKUP[:100]
    good = await shop.create("hostile", payload={"markup": MARKUP}, queue=word, tags=[word], metadata={"k": MARKUP}, unique_key=MARKUP)
    bad = await shop.create("hostile", payload={"markup": MARKUP, "fails": True})
    await shop.create(word, queue=word, payload={MARKUP: MARKUP})
    assert (await shop.finished(good["id"]))["status"] == "COMPLETED"
    assert (await shop.finished(bad["id"]))["status"] == "FAILED"
    for route in (
        "overview",
        "tasks",
        "tasks?status=FAILED",
        "errors",
        "queues",
        "types",
        f"tasks/{good['id']}",
        f"tasks/{bad['id']}",
        f"new?like={good['id']}",
    ):
        await show(page, route)
    await show(page, "queues")
    await expect(page.get_by_role("link", name=word, exact=True)).to_be_visible()
    await show(page, f"tasks/{good['id']}")
    await expect(page.get_by_role("region", name="Result").locator("code")).to_contain_text("<script>window.pwned=1</script>")
    await show(page, f"tasks/{bad['id']}")
    await expect(page.locator(".card.bad code").first).to_contain_text("<img src=x onerror=")
    assert await page.evaluate("window.pwned") is None
    assert await page.locator("#view img, #view script").count() == 0


async def test_what_is_served_is_small_safe_and_kept(shop: Town) -> None:
    assert {path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.*")} == {name for name, _ in FILES.values()}
    assert script_bytes(STATIC / "ui") < 60_000
    for path in FILES:
        async with shop.http.get(path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["Content-Encoding"] == "gzip"
            tag = answer.headers["ETag"]
        async with shop.http.get(path, headers={"If-None-Match": tag}) as again:
            assert again.status == 304
        async with shop.http.get(path, headers={"Accept-Encoding": "identity"}) as plain:
            assert "Content-Encoding" not in plain.headers
            assert (await plain.read()) == (STATIC / FILES[path][0]).read_bytes()


async def test_where_nothing_is_the_page_says_what_to_do(browser: Browser, postgres: Embedded, template: str) -> None:
    async with (
        database(postgres.dsn, template, f"e2e_{uuid4().hex}") as dsn,
        town(dsn) as fresh,
        watched(browser, fresh.url) as (page, seen),
    ):
        heads = {"overview": "Ready for the first task", "tasks": "No tasks yet", "errors": "No errors", "queues": "No queues yet"}
        for route, head in heads.items():
            await show(page, route)
            await expect(page.get_by_role("heading", name=head)).to_be_visible()
            await accessible(page)
        await show(page, "overview")
        command = await page.locator("#view pre").inner_text()
        process = await asyncio.create_subprocess_shell(f"{command} --silent --show-error", stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        first = await fresh.finished(json.loads(output)["id"])
        assert "there is no mail server" in first["error"]  # nothing else is wrong with it, where the database is not the embedded one
        seen.refusals.add(404)
        await show(page, f"tasks/{uuid4()}")
        await expect(page.get_by_role("heading", name="Not found")).to_be_visible()


async def test_a_service_that_is_away_is_named_and_what_was_there_stays(browser: Browser, shop: Town) -> None:
    queue = f"q{uuid4().hex}"
    await shop.create("quick", queue=queue, delay=3600)
    async with watched(browser, shop.url) as (page, seen):
        await show(page, f"tasks?queue={queue}")
        row = page.locator("tbody tr", has_text="quick")
        await expect(row).to_have_count(1)
        await page.route("**/api/**", lambda route: route.abort())
        await page.keyboard.press("r")
        await expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
        await expect(row).to_have_count(1)
        await page.unroute("**/api/**")
        await expect(page.get_by_role("alert")).to_have_count(0)
        seen.complaints[:] = [said for said in seen.complaints if "ERR_FAILED" not in said]
