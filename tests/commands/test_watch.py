"""``taskrunner task watch``."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.door import Api
from commands.shell import MAIN, Do

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"


@asynccontextmanager
async def watching(api: Api, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [*MAIN, "task", "watch", *words, f"--api-url={api.http._base_url}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    async with asyncio.timeout(15):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def test_a_task_is_shown_at_each_change_until_it_is_finished(api: Api) -> None:
    task = (await api.create())["id"]
    async with watching(api, task, "--json") as process:
        assert json.loads(await line(process))["status"] == "PENDING"
        await api.hold(task)
        assert json.loads(await line(process))["status"] == "RUNNING"
        await api.sql("update tasks_live set progress = 0.5, progress_message = 'half'")
        assert json.loads(await line(process))["progress_message"] == "half"
        await api.finish(task)
        assert json.loads(await line(process))["status"] == "COMPLETED"
        assert await process.wait() == 0


async def test_the_code_says_how_all_of_them_ended(do: Do, api: Api) -> None:
    good, bad = [(await api.create())["id"] for _ in range(2)]
    await api.finish(good)
    await api.finish(bad, "FAILED", error="no\n\x1b[31mway")
    code, out, _ = await do("watch", good, bad)
    first, second = out.splitlines()
    assert (code, good in first, "COMPLETED" in first) == (1, True, True)
    assert second.endswith("FAILED     default/x  attempt 1  no \\x1b[31mway")
    assert (await do("watch", good))[0] == 0


async def test_what_happens_to_all_that_fit(api: Api) -> None:
    old = (await api.create(queue="a"))["id"]
    await api.finish(old)
    async with watching(api, "--queue=a", "--after=" + "A" * 32) as process:
        assert old in await line(process)  # it listens from now on
        other, mine = (await api.create(queue="b"))["id"], (await api.create(queue="a"))["id"]
        for task in (other, mine):
            await api.finish(task, "FAILED", error="broken")
        while mine not in (shown := await line(process)):
            assert other not in shown
        assert shown.endswith("a/x  attempt 1  broken")
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert (process.returncode, err) == (130, b"taskrunner: interrupted\n")


async def test_an_event_as_json_says_where_to_go_on(api: Api) -> None:
    first, second = [(await api.create())["id"] for _ in range(2)]
    await api.finish(first)
    async with watching(api, "--json", "--status=COMPLETED", "--after=" + "A" * 32) as process:
        event = json.loads(await line(process))
    assert (event["event"], event["id"]) == ("finished", first)
    await api.finish(second)
    async with watching(api, "--json", f"--after={event['event_id']}") as process:
        assert json.loads(await line(process))["id"] == second


async def test_what_makes_no_sense(do: Do) -> None:
    assert (await do("watch", NOBODY))[0] == 3
    code, _, err = await do("watch", NOBODY, "--queue=a")
    assert (code, err) == (2, "taskrunner: give IDs, or filters and --after; not both\n")
    assert (await do("watch", "--after=x"))[0] == 2
