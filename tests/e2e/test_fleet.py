"""Queues, types, workers and errors: looked at, paused, drained, run again."""

from pathlib import Path
from uuid import uuid4

import pytest
from e2e.town import Town, show
from faults.processes import Process
from playwright.async_api import Page, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize(("view", "word", "member"), [("queues", "queue", "queue"), ("types", "type", "task_type")])
async def test_one_is_paused_and_goes_on(page: Page, shop: Town, view: str, word: str, member: str) -> None:
    name = f"{word}/{uuid4().hex}?"
    await shop.create_all([{"task_type": "quick", "delay": 3600, member: name}])
    await show(page, view)
    row = page.locator("tbody tr", has_text=name)
    await row.get_by_role("button", name=f"Pause {name}").click()
    await page.get_by_role("dialog").get_by_role("button", name=f"Pause {word}").click()
    await expect(row.locator(".tag", has_text="paused")).to_be_visible()
    if word == "queue":
        held = await shop.create("quick", queue=name)
        await expect(row.locator("td").nth(1)).to_have_text("1")
        await row.get_by_role("button", name=f"Resume {name}").click()
        assert (await shop.finished(held["id"]))["status"] == "COMPLETED"
    else:
        await row.get_by_role("button", name=f"Resume {name}").click()
    await expect(row.locator(".tag", has_text="paused")).to_have_count(0)


async def test_a_type_that_no_worker_serves_is_marked(page: Page) -> None:
    await show(page, "types")
    await expect(page.locator("tbody tr", has_text="nobodys").locator(".tag")).to_have_text("no worker")
    await expect(page.locator("tbody tr", has_text="charge-card").locator(".tag")).to_have_count(0)


async def test_a_worker_is_seen_and_drained(page: Page, shop: Town, tmp_path: Path) -> None:
    async with shop.http.get("/api/workers") as answer:
        ours = (await answer.json())["items"][0]
    await show(page, "workers")
    await expect(page.locator("tbody tr", has_text=ours["name"])).to_contain_text("Live")
    other = Process(
        tmp_path / "worker.log", ["--roles=worker"], {"SCHEDULER_ADDRESS": shop.scheduler, "WORKER_PORT": "0", "TASKRUNNER_SLOTS": "7"}
    )
    try:
        row = page.locator("tbody tr", has_text=f":{other.pid}")
        await expect(row).to_contain_text("0 of 7", timeout=20_000)
        await row.get_by_role("button", name="Drain").click()
        await page.get_by_role("button", name="Drain worker").click()
        await expect(row.locator(".badge")).to_have_text("Gone", timeout=20_000)
        assert await other.ended(within=20) == 0
    finally:
        other.kill()


async def test_errors_of_a_kind_are_one_row_and_run_again_together(page: Page, shop: Town, tmp_path: Path) -> None:
    file = tmp_path / "there"
    word = "".join(letter for letter in uuid4().hex if letter.isalpha())
    made = [{"task_type": "needs-file", "payload": {"file": str(file), "says": f"cannot open <b>{word}</b> order {n}"}} for n in range(12)]
    ids = await shop.create_all(made)
    for id_ in ids:
        assert (await shop.finished(id_))["status"] == "FAILED"
    await show(page, "errors")
    row = page.locator("tbody tr", has_text=word)
    await expect(row).to_have_count(1)
    await expect(row.locator("td").first).to_have_text("12")
    await row.get_by_role("link", name="An example").click()
    await expect(page.locator(".card.bad").first).to_contain_text(word)
    await page.go_back()
    await row.get_by_role("link", name="needs-file", exact=True).click()
    await expect(page.locator("tbody tr")).to_have_count(12)
    await page.go_back()
    file.touch()
    await row.get_by_role("button", name="Retry all").click()
    await page.get_by_role("button", name="Retry 12").click()
    await expect(page.locator("#notices")).to_contain_text("12 tasks retried.")
    for id_ in ids:
        assert (await shop.finished(id_))["status"] == "COMPLETED"
    await expect(row).to_have_count(0)
