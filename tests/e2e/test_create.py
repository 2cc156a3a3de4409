"""The form for a new task."""

import pytest
from e2e.town import Town, Watched, show
from playwright.async_api import Page, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_is_wrong_is_said_at_its_field_by_us_and_by_the_service(strict: tuple[Page, Watched], shop: Town) -> None:
    page, seen = strict
    await show(page, "new")
    await page.get_by_label("Payload").fill('{"order": 12,}')
    await page.get_by_role("button", name="Create task").click()
    await expect(page.locator("#about-task_type")).to_have_text("is required")
    await expect(page.locator("#about-payload")).to_contain_text("is not JSON")
    await expect(page.get_by_label("Type", exact=True)).to_be_focused()
    await page.get_by_label("Type", exact=True).fill("quick")
    await page.get_by_label("Payload").fill('{"order": 12}')
    await page.get_by_text("More", exact=True).click()
    await page.get_by_label("Attempts at most").fill("5000")
    seen.refusals.add(422)
    await page.get_by_role("button", name="Create task").click()
    await expect(page.locator("#about-max_attempts")).to_have_text("must be less than or equal to 1000")
    await expect(page.get_by_label("Payload")).to_have_value('{"order": 12}')
    await page.get_by_label("Attempts at most").fill("3")
    await page.get_by_label("Tags").fill("one, two words")
    await page.get_by_role("button", name="Create task").click()
    await expect(page.locator(".head .badge")).to_have_text("Completed")
    made = await shop.task(page.url.rsplit("/", 1)[1])
    assert (made["task_type"], made["payload"], made["max_attempts"], made["tags"]) == ("quick", {"order": 12}, 3, ["one", "two words"])


async def test_it_may_run_later_and_large_numbers_stay_as_they_are(page: Page, shop: Town) -> None:
    await show(page, "new?type=quick")
    await page.get_by_label("Payload").fill('{"b":[1,{}],"n":9007199254740993}')
    await page.get_by_role("button", name="Tidy payload").click()
    await expect(page.get_by_label("Payload")).to_have_value('{\n  "b": [\n    1,\n    {}\n  ],\n  "n": 9007199254740993\n}')
    await page.get_by_label("Queue").fill("later")
    await page.get_by_role("button", name="After a delay").click()
    await page.get_by_label("Seconds from now").fill("3600")
    await page.get_by_role("button", name="Create task").click()
    await expect(page.locator(".head .badge")).to_have_text("Pending")
    made = await shop.task(page.url.rsplit("/", 1)[1])
    assert made["payload"] == {"b": [1, {}], "n": 9_007_199_254_740_993}
    assert (made["queue"], made["run_at"] > made["created_at"]) == ("later", True)
    await show(page, "new?type=quick")
    await page.get_by_role("button", name="At a time").click()
    await page.get_by_label("Time, in your time zone").fill("2099-01-02T03:04:05")
    await page.get_by_role("button", name="Create task").click()
    await expect(page.locator(".head .badge")).to_have_text("Pending")
    assert (await shop.task(page.url.rsplit("/", 1)[1]))["run_at"].startswith("2099-01-0")
