"""The whole service inside a test: a database of its own, API, scheduler and worker in the test's process."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from taskrunner.client import ApiError, Client
from taskrunner.process import opened
from taskrunner.settings import Settings
from taskrunner.store.scratch import scratch_database

LIVE = ("PENDING", "QUEUED", "RUNNING")
LOOK = 0.02  # seconds between two looks


@asynccontextmanager
async def service(*handlers: str | ModuleType, data_dir: Path | None = None, **settings: Any) -> AsyncIterator[Client]:
    """The service with the handlers of these modules, on a fresh database; yields a client to it.

    The database server lives in ``data_dir`` (a cache folder of yours unless given) and is shared by test runs at the same time; the first
    start ever makes it, which takes seconds, later ones take less than two. ``settings`` are those of :class:`Settings`, as in
    ``service("shop.tasks", backoff_base=0.01)``; the environment counts as everywhere.
    """
    async with scratch_database(data_dir or _cache()) as dsn:
        names = tuple(module if isinstance(module, str) else module.__name__ for module in handlers)
        ours = {"http_port": 0, "scheduler_port": 0, "worker_port": 0, "grace": 2.0, "handlers": names}
        found = Settings(**{**ours, **settings, "db_dsn": dsn, "roles": ("api", "scheduler", "worker"), "scheduler_address": ()})
        async with opened(found) as where, Client(where["api"]) as client:
            await _ready(where["api"])
            yield client


async def drain(client: Client, queue: str | None = None, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 — the test's patience
    """Return when no task is live, of ``queue`` if it is given. Raises TimeoutError that names one after ``timeout`` seconds.

    A task whose time has not come is live too.
    """
    ends = time.monotonic() + timeout
    while True:
        first = await anext(client.list(page=1, status=LIVE, **({"queue": queue} if queue else {})), None)
        if first is None:
            return
        if time.monotonic() > ends:
            raise TimeoutError(
                f"after {timeout:g} s {first.task_type} {first.id} is {first.status}, for {first.run_at}; it may not be the only one"
            )
        await asyncio.sleep(LOOK)


async def _ready(url: str) -> None:
    """The door takes calls a moment after it listens."""
    async with Client(url, retries=0) as client:
        while True:
            await asyncio.sleep(LOOK)
            try:
                await anext(client.list(page=1), None)
            except ApiError as error:
                if error.status != 503:
                    raise
            else:
                return


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "taskrunner" / "testing"
