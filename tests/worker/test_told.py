"""What a handler says of itself, and what its task's end tells the caller's server: through every room."""

import asyncio
import base64
import secrets
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from pydantic import SecretStr
from standardwebhooks import Webhook
from worker.shop import settings, until

from taskrunner.domain.lifecycle import FINISHED
from taskrunner.domain.task import NewTask, Task
from taskrunner.scheduler import role as scheduler
from taskrunner.store.tasks import Store, open_store
from taskrunner.worker import role as worker


async def once(store: Store, made: NewTask, true: Callable[[Task], bool]) -> Task:
    """The new task, once ``true`` holds for it."""
    (created,) = await store.create([made])

    async def look() -> Task:
        found = await store.get(created.id)
        assert found is not None
        return found

    return await until(look, true, 15)


async def test_progress_shows_while_it_runs(dsn: str, tmp_path: Path) -> None:
    known = settings(db_dsn=SecretStr(dsn), scheduler_port=0, lease=10)
    go = tmp_path / "go"
    async with open_store(dsn, known) as store, scheduler.serve(known, store) as office, worker.serve(known, (office.address,)):
        running = await once(store, NewTask(task_type="wire.tell", payload=f'"{go}"'), lambda task: task.progress is not None)
        assert (running.status, running.progress, running.progress_message) in [
            ("QUEUED", 0.4, "waiting for the file"),
            ("RUNNING", 0.4, "waiting for the file"),
        ]
        go.touch()
        done = await until(lambda: store.get(running.id), lambda task: task is not None and task.status in FINISHED)
        assert done is not None
        assert (done.progress, done.progress_message) == (1.0, "seen")


async def test_the_end_is_told_signed(dsn: str) -> None:
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
    told: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def hear(request: web.Request) -> web.Response:
        told.put_nowait(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response()

    application = web.Application()
    application.router.add_post("/hook", hear)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    known = settings(db_dsn=SecretStr(dsn), scheduler_port=0, lease=10, webhook_secret=secret, webhook_allow="127.0.0.0/8")
    try:
        async with open_store(dsn, known) as store, scheduler.serve(known, store) as office, worker.serve(known, (office.address,)):
            made = NewTask(task_type="wire.echo", payload='{"a": 1}', callback_url=url, metadata='{"order": 7}')
            task = await once(store, made, lambda task: task.status in FINISHED)
            async with asyncio.timeout(10):
                headers, body = await told.get()
            document = Webhook(secret).verify(body, headers)
            data = document["data"]
            assert (document["type"], data["id"], data["result"], data["metadata"]) == (
                "task.completed",
                str(task.id),
                {"a": 1},
                {"order": 7},
            )
    finally:
        await runner.cleanup()
