"""The example of a worker in another language, against a real scheduler."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from doors.town import HERE, Town, one_of_two_is_killed
from faults.processes import Process
from faults.waiting import until
from system.calls import call

from taskrunner import Client

TOP = HERE.parent.parent
EXAMPLE = TOP / "examples" / "node-worker"


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its dependencies, and our handlers beside it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        pytest.skip("there is no node and npm here")
    folder = tmp_path_factory.mktemp("node") / "worker"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copy(HERE / "node_tasks.mjs", folder)
    made = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True, timeout=50, check=False
    )
    if made.returncode:
        pytest.skip(f"npm cannot install: {made.stderr.strip().splitlines()[-1:]}")
    return folder


def hire(town: Town, worker: Path, **environment: str) -> "subprocess.Popen[bytes]":
    return town.hire(["node", str(worker / "node_tasks.mjs")], TASKRUNNER_PROTO=str(TOP / "proto"), **environment)


async def test_one_of_two_node_workers_is_killed(town: Town, worker: Path) -> None:
    await one_of_two_is_killed(town, lambda: hire(town, worker))


async def test_every_outcome(town: Town, worker: Path) -> None:
    await town.service.said("ready")
    hire(town, worker)
    async with Client(town.url) as client:
        payload = {"text": "ÄÖ\u2028", "list": [1, None, 1.5]}
        echo, nothing = await client.create("echo", payload), await client.create("nothing")
        fail, retry, slow = (
            await client.create("fail", "why"),
            await client.create("retry"),
            await client.create("work", {"seconds": 60, "n": 0}),
        )
        late = await client.create("work", {"seconds": 60, "n": 0}, timeout=0.2, max_attempts=1)
        assert (await client.wait(echo.id, 20)).result == payload
        assert (await client.wait(nothing.id, 20)).succeeded
        failed = await client.wait(fail.id, 20)
        assert (failed.status, failed.error, failed.attempt) == ("FAILED", "why", 1)
        again = await client.wait(retry.id, 20)
        assert (again.status, again.result, again.attempts[0].error) == ("COMPLETED", 2, "TypeError: not yet")
        assert "node_tasks.mjs" in (again.attempts[0].traceback or "")
        over = await client.wait(late.id, 20)
        assert (over.status, over.error) == ("FAILED", "timed out after 0.20000000298023224 s")
        await client.cancel(slow.id)
        assert (await client.wait(slow.id, 20)).status == "CANCELLED"


async def test_it_stops_when_asked(town: Town, worker: Path) -> None:
    await town.service.said("ready")
    node = hire(town, worker, GRACE="0.3")
    async with Client(town.url) as client:
        made = await client.create_batch([{"task_type": "work", "payload": {"seconds": s, "n": 0}} for s in (0.2, 60)])
        await until(lambda: len(town.open_at(node.pid)) == 2, within=20, what="both to run")
        node.send_signal(signal.SIGTERM)
        assert node.wait(10) == 0, town.logs()
        assert (await client.wait(made[0].id, 5)).succeeded
        given_back = await client.get(made[1].id)
        assert (given_back.status, given_back.attempt) == ("PENDING", 0)


async def test_it_drains_when_somebody_says_so(town: Town, worker: Path) -> None:
    await town.service.said("ready")
    node = hire(town, worker)
    async with Client(town.url) as client:
        task = await client.create("work", {"seconds": 0.3, "n": 1})
        await until(lambda: town.open_at(node.pid), within=20, what="it to run")
        (session,) = [one["session"] for one in call("GET", f"{town.url}/api/workers")[1]["items"]]
        assert call("POST", f"{town.url}/api/workers/{session}/drain")[0] == 202
        await until(lambda: node.poll() is not None, within=10, what="its end")
        assert node.returncode == 0, town.logs()
        assert (await client.wait(task.id, 5)).result == {"n": 1}
    await until(lambda: call("GET", f"{town.url}/api/workers")[1]["items"][0]["status"] == "DEAD", within=5, what="its session's end")
    assert town.service.events("a worker's session is over") == [], "it was not lost"


async def test_it_goes_on_when_the_scheduler_was_killed(town: Town, worker: Path) -> None:
    await town.service.said("ready")
    node = hire(town, worker)
    async with Client(town.url) as client:
        (made,) = await client.create_batch([{"task_type": "work", "payload": {"seconds": 1.5, "n": 7}}])
        await until(lambda: town.open_at(node.pid), within=20, what="it to run")
        os.killpg(town.service.pid, signal.SIGKILL)
        town.service.popen.wait(10)
        town.service = Process(town.folder / "again.log", ["--roles=api,scheduler"], town.settings)
        await town.service.said("ready")
        task = await client.wait(made.id, 20)
    assert (task.status, task.result, task.attempt) == ("COMPLETED", {"n": 7}, 1)
    assert [what for what, _, _ in town.lines()] == ["start", "done"]
