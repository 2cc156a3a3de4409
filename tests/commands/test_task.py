"""``taskrunner task`` against a real API."""

import asyncio
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from api.door import Api
from commands.shell import Do

from taskrunner.cli import main
from taskrunner.commands.arguments import ACTIONS

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"


async def test_create_and_get_as_json(do: Do) -> None:
    code, out, err = await do(
        "create", "bill", '{"n": 1}', "--queue=q", "--priority=1", "--timeout=9", "--max-attempts=2", "--tag=a", "--tag=b", "--json"
    )
    task = json.loads(out)
    assert (code, err) == (0, "")
    assert (task["task_type"], task["payload"], task["queue"], task["priority"], task["timeout"], task["tags"]) == (
        "bill",
        {"n": 1},
        "q",
        1,
        9,
        ["a", "b"],
    )
    code, out, _ = await do("get", task["id"], "--json")
    assert (code, json.loads(out)["id"], json.loads(out)["attempts"]) == (0, task["id"], [])


async def test_what_people_read(do: Do) -> None:
    code, out, _ = await do("create", "bill", "--run-at=2030-01-02T03:04:05Z")
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line)
    assert (code, rows["task_type"], rows["payload"], rows["status"], rows["run_at"]) == (
        0,
        "bill",
        "{}",
        "PENDING",
        "2030-01-02 03:04:05.000Z",
    )
    code, out, _ = await do("list")
    assert (code, out) == (0, f"{rows['id']}  PENDING    2030-01-02 03:04:05.000Z  default/bill  attempt 0")


async def test_a_payload_from_standard_input(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO('["ü", 2]\n'.encode()), "latin-1"))
    assert json.loads((await do("create", "x", "-", "--json"))[1])["payload"] == ["ü", 2]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"\xff"'), "utf-8"))
    code, _, err = await do("create", "x", "-")
    assert (code, err.count("\n"), "UTF-8" in err) == (2, 1, True)


async def test_json_is_sent_as_it_stands(do: Do) -> None:
    task = json.loads((await do("create", "x", "null", '--metadata={"n": 18446744073709551615}', "--json"))[1])
    assert (task["payload"], task["metadata"]) == (None, {"n": 2**64 - 1})


async def test_list_filters_and_stops_at_its_limit(do: Do) -> None:
    for queue in ("a", "a", "b"):
        await do("create", "x", f"--queue={queue}")
    assert len((await do("list", "--queue=a", "--status=PENDING,FAILED", "--task-type=x"))[1].splitlines()) == 2
    lines = (await do("list", "--limit=1", "--json"))[1].splitlines()
    assert [json.loads(line)["queue"] for line in lines] == ["b"]
    assert len((await do("list", "--limit=0"))[1].splitlines()) == 3


async def test_cancel_retry_and_run(do: Do) -> None:
    ids = [json.loads((await do("create", "x", "--delay=60", "--json"))[1])["id"] for _ in range(2)]
    for action, status in (("run", "PENDING"), ("cancel", "CANCELLED"), ("retry", "PENDING")):
        code, out, _ = await do(action, *ids, "--json")
        assert (code, [json.loads(line)["status"] for line in out.splitlines()]) == (0, [status] * 2)


async def test_each_that_fails_is_named_and_the_others_are_done(do: Do) -> None:
    good, gone = [json.loads((await do("create", "x", "--json"))[1])["id"] for _ in range(2)]
    await do("cancel", gone)
    code, out, err = await do("cancel", gone, good, "--json")
    assert (code, json.loads(out)["id"], err.startswith(f"taskrunner: {gone!r}: "), err.count("\n")) == (1, good, True, 1)
    code, out, err = await do("wait", "x", NOBODY, gone, "--json")
    assert (code, json.loads(out)["id"]) == (3, gone)
    assert [line.split(":")[1] for line in err.splitlines()] == [" 'x'", f" '{NOBODY}'"]


async def test_what_is_wrong_with_every_call_is_said_once(do: Do, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.client.transport.BASE", 0.001)
    code, _, err = await do("cancel", NOBODY, NOBODY, f"--api-url=http://127.0.0.1:{unused_tcp_port}")
    assert (code, err.count("\n")) == (1, 1)


async def test_wait_says_by_its_code_how_it_ended(do: Do, api: Api) -> None:
    good, bad = [json.loads((await do("create", "x", "--json"))[1])["id"] for _ in range(2)]
    await api.finish(good)
    await api.finish(bad, "FAILED", error="no")
    assert (await do("wait", good))[0] == 0
    code, out, _ = await do("wait", good, bad)
    assert (code, "FAILED" in out) == (1, True)
    code, out, _ = await do("create", "x", "--wait=0.1")
    assert code == 1


@pytest.mark.parametrize(
    ("argv", "code", "sentence"),
    [
        (["get", NOBODY], 3, "there is no task with this id"),
        (["create", "x", "{"], 2, "the payload must be JSON"),
        (["create", "x", "--metadata=x"], 2, "--metadata must be JSON"),
        (["create", "x", '{"a": NaN}'], 2, "the payload must be JSON"),
        (["create", "x", "1e400"], 2, "the payload must be JSON"),
        (["create", "x", '1, "queue": "q"'], 2, "the payload must be JSON"),
        (["create", "x", '"\\ud800"'], 2, "the payload must be JSON"),
        (["create", "x", "[" * 3_000 + "]" * 3_000], 2, "the payload must be JSON"),
        (["create", "x", "[" * 65 + "]" * 65], 2, "64 levels"),
        (["create", "x", "18446744073709551616"], 2, "does not fit 64 bits"),
        (["create", "x", '{"a": 1, "a": 2}'], 2, "stands twice"),
        (["create", "x", '--metadata={"x": NaN}'], 2, "--metadata must be JSON"),
        (["create", "x", '--metadata={"a": 1, "a": 2}'], 2, "stands twice"),
        (["create", "x", "--max-attempts=99999999999999999999"], 2, "64-bit"),
        (["create", "x\udcff"], 2, "UTF-8"),
        (["create", "x", "--idempotency-key=a\nb"], 2, "the idempotency key 'a\\nb' cannot be sent"),
        (["list", "--queue=\udcff"], 2, "UTF-8"),
        (["get", ""], 2, "give an id or a name"),
        (["get", NOBODY, "--api-token=a\nb"], 2, "TASKRUNNER_API_TOKEN"),
        (["create", "x", "--priority=9"], 2, "priority must be"),
        (["get", "x"], 2, "id must be the UUID of a task"),
        (["list", "--status=LOST"], 2, "status must be one or more of"),
        (["import", "/nowhere"], 1, "No such file or directory"),
        (["get", NOBODY, "--api-url=localhost"], 2, "TASKRUNNER_API_URL"),
    ],
)
async def test_what_goes_wrong_is_one_line(do: Do, argv: list[str], code: int, sentence: str) -> None:
    found, out, err = await do(*argv)
    assert (found, out) == (code, "")
    assert err.startswith("taskrunner: ")
    assert sentence in err
    assert err.count("\n") == 1


async def test_a_conflict_is_a_failure(do: Do) -> None:
    task = json.loads((await do("create", "x", "--json"))[1])["id"]
    code, _, err = await do("retry", task)
    assert (code, err.count("\n")) == (1, 1)


def test_nobody_there(unused_tcp_port: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.client.transport.BASE", 0.001)
    assert main(["task", "list", f"--api-url=http://127.0.0.1:{unused_tcp_port}"]) == 1
    assert capsys.readouterr().err.count("is the service there, and is TASKRUNNER_API_URL right?\n") == 1


async def test_import_a_file(do: Do, tmp_path: Path) -> None:
    file = tmp_path / "tasks"
    file.write_text("".join(f'{{"task_type": "x", "payload": {n}}}\n' for n in range(1_000)))
    code, out, err = await do("import", str(file))
    assert (code, err) == (0, "")
    assert out.startswith("1,000 tasks created in ")
    code, out, _ = await do("import", str(file), "--json")
    assert len({json.loads(line)["id"] for line in out.splitlines()}) == 1_000
    file.write_text(file.read_text() + "{}\n")
    code, _, err = await do("import", str(file))
    assert code == 2
    assert err.startswith("taskrunner: line 1001: task_type is required")


async def test_import_on_a_terminal_shows_a_bar(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "tasks"
    file.write_text('{"task_type": "x"}\n' * 20_000)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "taskrunner", "task", "import", str(file), f"--api-url={api.http._base_url}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    out, _ = await process.communicate()
    shown = b""
    while True:
        try:
            block = os.read(ours, 65_536)
        except OSError:  # the other side of a terminal is closed
            break
        shown += block
    os.close(ours)
    assert (process.returncode, out.decode().startswith("20,000 tasks created in ")) == (0, True)
    assert b"100%" in shown
    assert "█".encode() in shown


def test_help_lists_the_actions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["task", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{action} {about}" in text for action, about in ACTIONS.items())
