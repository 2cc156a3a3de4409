"""The pictures of the documents, of real data: a shop's tasks run on a whole service for some minutes, and a browser looks at it.

`make screenshots`, or `python -m e2e.screenshots [--minutes N]` in tests. The system's font is what the browser finds; Inter looks best.
"""

import argparse
import asyncio
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from e2e.town import PHONE, Town, chromium, show, town
from playwright.async_api import Browser, Page, ViewportSize

from taskrunner.store import migrate
from taskrunner.store.embedded import embedded_postgres

PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"
MOST = 200_000  # bytes of a picture
SIZE = ViewportSize(width=1280, height=900)


def order(n: int) -> dict[str, Any]:
    """One of a shop's tasks."""
    kind = random.random()
    if kind < 0.45:
        payload = {"invoice": n, "pages": random.randint(1, 9), "to": f"customer{n % 500}@example.com"}
        return {"task_type": "send-invoice", "queue": "mail", "payload": payload, "tags": ["vip"] if n % 5 == 0 else []}
    if kind < 0.75:
        return {"task_type": "resize-image", "queue": "images", "priority": 3, "payload": {"file": f"uploads/{n}.png", "width": 640}}
    if kind < 0.93:
        return {
            "task_type": "charge-card",
            "queue": "payments",
            "priority": 1,
            "payload": {"order": n, "amount_cents": random.randint(500, 90_000)},
        }
    return {"task_type": "sync-crm", "payload": {"customer": n, "fields": ["name", "email"]}}


async def trade(shop: Town, minutes: float) -> None:
    """Tasks as they come in a shop: in waves, with a rush now and then."""
    await shop.create_all([{"task_type": "nightly-report", "queue": "reports", "payload": {"steps": int(90 * minutes)}}] * 3)
    await shop.create_all([{"task_type": "send-invoice", "queue": "mail", "delay": random.randint(3600, 90_000)} for _ in range(120)])
    began = time.monotonic()
    n = 10_000
    while time.monotonic() < began + 60 * minutes:
        wave = 30 + 18 * math.sin((time.monotonic() - began) / 70) + random.random() * 10
        many = int(wave * (6 if random.random() < 0.01 else 1))
        await shop.create_all([order(n + one) for one in range(many)])
        n += many
        await asyncio.sleep(1)


async def picture(page: Page, name: str) -> None:
    """Keep what the page shows."""
    path = PICTURES / f"{name}.png"
    await page.screenshot(path=path)
    assert path.stat().st_size < MOST, f"{path} has {path.stat().st_size} bytes"
    print(path, path.stat().st_size)


async def look(browser: Browser, shop: Town) -> None:
    """Every picture."""
    async with shop.http.get("/api/tasks?status=FAILED&task_type=sync-crm&limit=1") as answer:
        failed = (await answer.json())["items"][0]["id"]
    for theme in ("light", "dark"):
        context = await browser.new_context(viewport=SIZE, color_scheme=theme, base_url=shop.url)
        page = await context.new_page()
        for name, route in {
            "overview": "overview?span=900",
            "tasks": "tasks",
            "task": f"tasks/{failed}",
            "errors": "errors",
        }.items():
            await show(page, route)
            await asyncio.sleep(20 if name == "overview" else 1)  # its live charts begin when it is opened
            await picture(page, f"{name}-{theme}")
        await context.close()
    context = await browser.new_context(viewport=PHONE, color_scheme="light", base_url=shop.url, device_scale_factor=2)
    page = await context.new_page()
    await show(page, "tasks")
    await asyncio.sleep(1)
    await picture(page, "phone")
    await context.close()


async def main() -> None:
    """Trade, then look while trade goes on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=14)
    minutes = parser.parse_args().minutes
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="screenshots-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        async with embedded_postgres(Path(folder) / "pg") as server:
            await migrate.up(server.dsn)
            async with town(server.dsn, backoff_base=0.5) as shop, chromium() as browser, asyncio.TaskGroup() as group:
                trading = group.create_task(trade(shop, minutes + 5))
                await asyncio.sleep(60 * minutes)
                await look(browser, shop)
                trading.cancel()


asyncio.run(main())
