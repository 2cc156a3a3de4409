"""The list of tasks: found by filters, and changed one, some or all at once."""

import re
from pathlib import Path
from uuid import uuid4

import pytest
from e2e.town import Town, Watched, show
from faults.waiting import until
from playwright.async_api import Page, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_filters_are_in_the_address_and_back_leads_back(page: Page) -> None:
    await show(page, "tasks")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(50)
    await page.get_by_role("button", name="Failed").click()
    await expect(page).to_have_url(re.compile(r"#/tasks\?status=FAILED$"))
    await expect(page.locator("tbody .badge.failed")).to_have_count(50)
    await page.get_by_label("Type", exact=True).select_option("sync-crm")
    await expect(page).to_have_url(re.compile("task_type=sync-crm"))
    await expect(page.locator(".tab", has_text="Completed")).to_have_text("Completed0")
    await expect(page.locator("tbody td.type a.strong", has_not_text="sync-crm")).to_have_count(0)
    await page.reload()
    await expect(page.locator("tbody .badge.failed")).to_have_count(50)
    await page.go_back()
    await expect(page).to_have_url(re.compile(r"#/tasks\?status=FAILED$"))
    await page.get_by_role("button", name="Older").click()
    await expect(page.get_by_role("button", name="Newest")).to_be_visible()
    await page.get_by_label("Find by id").fill("tag:vip")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("#/tasks[?](?!.*cursor).*tag=vip"))
    await expect(page.locator(".tab", has_text="Failed")).to_have_text("Failed")  # nobody has counted those with a tag
    await page.get_by_role("button", name="All", exact=True).click()
    await expect(page.locator("tbody .tag", has_text="vip")).to_have_count(50)
    await page.get_by_role("button", name="Remove the filter tag vip").click()
    await page.get_by_label("Find by id").fill("nobodys")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("link", name="nobodys")).to_have_count(3)


async def test_an_id_leads_to_its_task(page: Page, shop: Town) -> None:
    made = await shop.create("quick", delay=3600)
    await show(page, "tasks")
    await page.keyboard.press("/")
    await page.keyboard.type(made["id"])
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(f"{made['id']}$"))
    await expect(page.locator(".badge")).to_have_text("Pending")


async def test_some_are_chosen_and_run_again(page: Page, shop: Town, tmp_path: Path) -> None:
    file, queue = tmp_path / "there", f"q{uuid4().hex}"
    ids = await shop.create_all([{"task_type": "needs-file", "queue": queue, "payload": {"file": str(file)}}] * 4)
    for id_ in ids:
        assert (await shop.finished(id_))["status"] == "FAILED"
    file.touch()
    await show(page, f"tasks?queue={queue}")
    for box in (await page.locator("tbody input[type=checkbox]").all())[:3]:
        await box.check()
    await expect(page.get_by_text("3 selected")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    await page.get_by_role("region", name="Selected tasks").get_by_role("button", name="Retry").click()
    await page.get_by_role("button", name="Retry 3 tasks").click()
    await expect(page.locator("#notices")).to_contain_text("3 tasks retried.")
    await expect(page.locator("tbody .badge.completed")).to_have_count(3)
    await expect(page.locator("tbody .badge.failed")).to_have_count(1)
    await expect(page.get_by_role("region", name="Selected tasks")).to_have_count(0)


async def test_all_that_match_are_cancelled_and_then_deleted_with_confirmation_and_progress(page: Page, shop: Town) -> None:
    queue = f"q{uuid4().hex}"
    await shop.create_all([{"task_type": "quick", "queue": queue, "delay": 3600}] * 700)
    await show(page, f"tasks?queue={queue}")
    await page.get_by_label("Select all on this page").check()
    await page.get_by_role("button", name="Select all that match").click()
    await page.get_by_role("region", name="Selected tasks").get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("Cancel 700 tasks?")
    await expect(dialog).to_contain_text(f"queue {queue}")
    await dialog.get_by_role("button", name="Cancel", exact=True).first.click()  # not yet
    assert await shop.many(queue=queue, status="PENDING") == 500
    await page.get_by_role("region", name="Selected tasks").get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Cancel 700").click()
    await expect(page.locator("#notices progress")).to_be_visible()
    await expect(page.locator("#notices")).to_contain_text("700 tasks cancelled.")
    assert await shop.many(queue=queue, status="PENDING") == 0
    await expect(page.locator("tbody .badge.cancelled")).to_have_count(50)
    await expect(page.locator("tbody tr").first.locator("td[data-label=Took]")).to_have_text("–")
    await page.get_by_label("Select all on this page").check()
    await page.get_by_role("button", name="Select all that match").click()
    await page.get_by_role("region", name="Selected tasks").get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Delete 700").click()
    await expect(page.locator("#notices")).to_contain_text("700 tasks deleted.")
    await expect(page.get_by_role("heading", name="No task matches")).to_be_visible()
    assert await shop.many(queue=queue) == 0


async def test_what_could_not_be_done_is_said(strict: tuple[Page, Watched], shop: Town) -> None:
    page, seen = strict
    queue = f"q{uuid4().hex}"
    first, _ = await shop.create_all([{"task_type": "quick", "queue": queue, "delay": 3600}] * 2)
    await show(page, f"tasks?queue={queue}")
    await page.keyboard.press("p")
    await page.get_by_label("Select all on this page").check()
    async with shop.http.post(f"/api/tasks/{first}/cancel"):
        pass
    await page.get_by_role("region", name="Selected tasks").get_by_role("button", name="Cancel").click()
    seen.refusals.add(409)
    await page.get_by_role("button", name="Cancel 2 tasks").click()
    await expect(page.locator("#notices")).to_contain_text("1 task cancelled; 1 could not be: the task is CANCELLED already.")


async def test_it_lives_and_rests_when_told_so(page: Page, shop: Town) -> None:
    queue = f"q{uuid4().hex}"
    await shop.create("quick", queue=queue)
    await show(page, f"tasks?queue={queue}")
    await expect(page.get_by_text("Live", exact=True)).to_be_visible()
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(1)
    await shop.create("quick", queue=queue)
    await expect(rows).to_have_count(2)
    await page.keyboard.press("p")
    await expect(page.get_by_text("Paused", exact=True)).to_be_visible()
    made = await shop.create("quick", queue=queue)
    await shop.finished(made["id"])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.wait_for_timeout(1500)
    assert asked == []
    await expect(rows).to_have_count(2)
    await page.get_by_role("button", name="Live updates are paused: resume").click()
    await expect(rows).to_have_count(3)


async def test_the_keys_reach_everything(page: Page, shop: Town) -> None:
    await show(page, "overview")
    for keys, view in (
        ("gt", "tasks"),
        ("ge", "errors"),
        ("gq", "queues"),
        ("gy", "types"),
        ("gw", "workers"),
        ("go", "overview"),
        ("n", "new"),
    ):
        await page.keyboard.type(keys)
        await expect(page).to_have_url(re.compile(f"#/{view}$"))
    await show(page, "tasks")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("Pause or resume")
    await expect(page.locator("kbd", has_text=re.compile("^[jk]$"))).to_have_count(2)
    await page.keyboard.press("Escape")
    await page.keyboard.press("p")
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("x")
    await expect(page.locator("tbody tr").nth(1)).to_have_class("chosen")
    await page.keyboard.press("Enter")
    await expect(page.locator(".idline")).to_be_visible()
    await until(lambda: page.evaluate("document.activeElement.id === 'title'"), within=5, what="the focus at the new view's title")
