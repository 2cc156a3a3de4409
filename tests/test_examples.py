"""The example that README shows: it is that file, and it runs as README says."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from taskrunner.settings import Settings, env_name

TOP = Path(__file__).parent.parent
EXAMPLE = TOP / "examples" / "hello.py"


@asynccontextmanager
async def taskrunner(dsn: str) -> AsyncIterator[str]:
    """All three roles in one process with the example's handlers; where its API is. It must end cleanly when asked to."""
    environment = {name: value for name, value in os.environ.items() if name not in {env_name(name) for name in Settings.model_fields}}
    ports = ("--http-port=0", "--scheduler-port=0", "--worker-port=0")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "taskrunner", "--handlers=examples.hello", "--log-format=json", *ports),
        cwd=TOP,
        env=environment | {"DB_DSN": dsn},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        said: dict[str, Any] = {}
        while said.get("event") != "ready":
            said = json.loads(await process.stderr.readline())
        yield said["api"]
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_the_example_runs(dsn: str) -> None:
    async with taskrunner(dsn) as url, aiohttp.ClientSession(url) as http:
        async with asyncio.timeout(30):
            while (await http.get("/readyz")).status != 200:
                await asyncio.sleep(0.02)

        async def run(task_type: str, payload: object) -> dict[str, Any]:
            async with http.post("/api/tasks", json={"task_type": task_type, "payload": payload}) as created:
                assert created.status == 201
                task = await created.json()
            async with http.get(f"{created.headers['Location']}?wait=30") as finished:
                return dict(await finished.json(), id=task["id"])

        greeted = await run("hello", {"name": "Ada"})
        assert (greeted["status"], greeted["attempt"], greeted["max_attempts"]) == ("COMPLETED", 1, 8)
        assert greeted["result"] == {"text": "Hello, Ada!", "task": greeted["id"]}

        woken = await run("hello", {"name": "sleeper"})
        assert (woken["status"], woken["attempt"], woken["result"]["text"]) == ("COMPLETED", 2, "Hello, sleeper!")
        assert [attempt["error"] for attempt in woken["attempts"]] == ["still asleep"]

        refused = await run("hello", {"nom": "Ada"})
        assert (refused["status"], refused["error"]) == ("FAILED", "the payload does not fit: name: Field required")

        assert (await run("count-words", "one two three"))["result"] == 3


def test_readme_shows_the_file() -> None:
    assert f"```python\n{EXAMPLE.read_text()}```" in (TOP / "README.md").read_text()
