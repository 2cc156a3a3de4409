"""One task: watched while it runs, changed, copied."""

import asyncio
import re
from uuid import uuid4

import pytest
from e2e.town import Town, show
from faults.waiting import until
from playwright.async_api import Page, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")
LARGE = 9_007_199_254_740_993  # 2^53 + 1: a double has no such number


async def test_a_task_is_watched_to_its_end(page: Page, shop: Town) -> None:
    made = await shop.create("nightly-report", payload={"steps": 8, "pace": 0.3})
    await show(page, f"tasks/{made['id']}")
    await expect(page.locator(".head .badge")).to_have_text("Running")
    await expect(page.get_by_role("progressbar", name="Progress")).to_be_visible()
    await expect(page.locator(".progress")).to_contain_text("of 8")
    runs = page.locator(".timeline li", has_text="Attempt 1 is running", has_not=page.locator("time"))
    await expect(runs).to_be_visible()  # its last change was progress: nobody knows when it began
    await expect(page.locator(".head .badge")).to_have_text("Completed")
    await expect(page.get_by_role("region", name="Result")).to_contain_text('"pages": 8')
    await expect(page.locator(".timeline")).to_contain_text("Completed")


async def test_a_failure_is_told_with_each_attempt_and_its_traceback(page: Page, shop: Town) -> None:
    made = await shop.create("sync-crm", payload={"customer": 5}, max_attempts=2)
    await shop.finished(made["id"])
    await show(page, f"tasks/{made['id']}")
    await expect(page.locator(".card.bad")).to_contain_text("KeyError: 'email'")
    await expect(page.locator(".card.bad")).to_contain_text('raise KeyError(contact["email"])')
    await expect(page.locator(".timeline li", has_text="Attempt 1 failed")).to_be_visible()
    await expect(page.locator(".timeline li").last).to_contain_text("Failed for good")
    await page.get_by_role("button", name="Retry").click()
    await expect(page.locator("#notices")).to_contain_text("Task runs again")
    await until(lambda: _epochs(shop, made["id"], 4), within=10, what="its third and fourth attempt")


async def _epochs(shop: Town, id_: str, attempts: int) -> bool:
    return len((await shop.task(id_))["attempts"]) == attempts


async def test_a_running_task_is_cancelled(page: Page, shop: Town) -> None:
    made = await shop.create("patient")
    await show(page, f"tasks/{made['id']}")
    await expect(page.locator(".head .badge")).to_have_text("Running")
    await expect(page.locator(".timeline li", has_text="Attempt 1 is running").locator("time")).to_have_count(1)
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await page.get_by_role("button", name="Cancel task").click()
    await expect(page.locator(".head .badge")).to_have_text("Cancelled")
    assert (await shop.task(made["id"]))["status"] == "CANCELLED"


async def test_a_waiting_task_is_rescheduled_run_now_and_deleted(page: Page, shop: Town) -> None:
    made = await shop.create("quick", delay=86400)
    await show(page, f"tasks/{made['id']}")
    await page.get_by_role("button", name="Reschedule").click()
    await page.get_by_role("button", name="in 1 hour").click()
    await page.get_by_role("dialog").get_by_role("button", name="Reschedule").click()
    await expect(page.locator("#notices")).to_contain_text("Task rescheduled")
    moved = await shop.task(made["id"])
    assert moved["run_at"] < made["run_at"]
    await page.get_by_role("button", name="Run now").click()
    await expect(page.locator(".head .badge")).to_have_text("Completed")
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("button", name="Delete task").click()
    await expect(page).to_have_url(re.compile(r"#/tasks$"))
    async with shop.http.get(f"/api/tasks/{made['id']}") as answer:
        assert answer.status == 404


async def test_the_copied_command_makes_the_same_task_to_the_last_digit(page: Page, shop: Town) -> None:
    payload = {"n": LARGE, "text": 'it\'s "quoted" $HOME `id` \\ \n é', "none": None}
    queue = f"q{uuid4().hex}"
    made = await shop.create("quick", payload=payload, queue=queue, tags=["a b"], priority=3, metadata={"from": "shop"})
    await shop.finished(made["id"])
    await show(page, f"tasks/{made['id']}")
    await expect(page.get_by_role("region", name="Payload")).to_contain_text(str(LARGE))
    await page.get_by_role("button", name="Copy as curl").click()
    await expect(page.locator("#notices")).to_contain_text("Command copied")
    command = await page.evaluate("navigator.clipboard.readText()")
    process = await asyncio.create_subprocess_shell(f"{command} --silent --show-error", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0, output
    async with shop.http.get("/api/tasks", params={"queue": queue}) as answer:
        copy, original = (await answer.json())["items"]
    same = ("task_type", "payload", "queue", "priority", "tags", "metadata")
    assert copy["payload"] == payload
    assert [copy[name] for name in same] == [original[name] for name in same]
