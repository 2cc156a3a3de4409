"""The dashboard in a browser, over a whole service with thousands of tasks. One service serves all tests; each makes its own tasks."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio
from e2e.town import CHROMIUM, Town, Watched, chromium, database, town, watched
from playwright.async_api import Browser, Page, expect

from taskrunner.store.embedded import Embedded

MANY = 3000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser has its time; without one there is nothing to look with."""
    for item in (item for item in items if "/e2e/" in str(item.path)):
        item.add_marker(pytest.mark.timeout(180))
        if CHROMIUM is None:
            item.add_marker(pytest.mark.skip(reason="no chromium here: the dashboard is not tested (Debian: apt-get install chromium)"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    expect.set_options(timeout=15_000)  # the machine may be busy with other things
    async with chromium() as it:
        yield it


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shop(postgres: Embedded, template: str) -> AsyncIterator[Town]:
    """A service in which thousands of tasks have ended, some badly, and some wait."""
    async with database(postgres.dsn, template, f"e2e_{uuid4().hex}") as dsn, town(dsn) as it:
        for first in range(0, MANY, 1000):
            await it.create_all([_order(n) for n in range(first, first + 1000)])
        await it.create_all([{"task_type": "nobodys", "queue": "lost"}] * 3)
        await it.create_all(
            [{"task_type": "a-type.whose-name.is-rather-long", "queue": "a-queue.that-has.a-rather-long.name.too", "delay": 3600}]
        )
        yield it


def _order(n: int) -> dict[str, object]:
    if n % 50 == 0:
        return {"task_type": "charge-card", "queue": "payments", "payload": {"order": 23 * n}}
    if n % 50 == 1:
        return {"task_type": "sync-crm", "payload": {"customer": 5 * n}, "max_attempts": 1}
    if n % 50 == 2:
        return {"task_type": "send-invoice", "queue": "mail", "delay": 3600, "payload": {"invoice": n}}
    return {"task_type": "quick", "queue": "mail" if n % 2 else "images", "payload": {"order": n}, "tags": ["vip"] if n % 10 == 3 else []}


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser, shop: Town) -> AsyncIterator[Page]:
    """A page of the shop's dashboard that has to behave."""
    async with watched(browser, shop.url) as (it, _):
        yield it


@pytest_asyncio.fixture(loop_scope="session")
async def strict(browser: Browser, shop: Town) -> AsyncIterator[tuple[Page, Watched]]:
    """The same, with what it is watched by: for tests that provoke refusals."""
    async with watched(browser, shop.url) as both:
        yield both
