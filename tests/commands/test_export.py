"""``taskrunner task export``: every task once, whatever breaks it off."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from api.door import Api
from commands.shell import Do, terminal

from taskrunner.api.bodies import TaskBody
from taskrunner.client import Client, Page, Unreachable
from taskrunner.commands import exporting

SCHEDULED = {
    "payload": [1, "ü", None],
    "queue": "q",
    "priority": 3,
    "run_at": "2030-01-02T03:04:05.000006Z",
    "expires_at": "2031-01-01T00:00:00.000000Z",
    "max_attempts": 7,
    "timeout": 2.5,
    "backoff": {"kind": "constant", "base": 2.5},
    "tags": ["a", "b"],
    "metadata": {"m": {}},
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "callback_url": "https://example.com/done",
}


async def fill(api: Api, n: int, queue: str = "default") -> list[str]:
    """``n`` tasks, the ids newest first."""
    await api.sql(
        "insert into tasks_live (task_type, queue, payload, run_at) "
        "select 'x', %s, jsonb_build_object('n', n, 'text', 'ü\n'), now() + interval '1 hour' from generate_series(1, %s) n",
        *(queue, n),
    )
    rows = await api.sql("select id::text from tasks where queue = %s order by id desc", queue)
    return [row[0] for row in rows]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_every_task_is_a_line_as_the_service_has_it(do: Do, api: Api, tmp_path: Path) -> None:
    ids = await fill(api, 1_203)
    file = tmp_path / "all.ndjson"
    code, out, err = await do("export", str(file))
    assert (code, err) == (0, "")
    assert out.startswith(f"1,203 tasks written to {file} in ")
    tasks = read(file)
    assert [task["id"] for task in tasks] == ids
    async with api.http.get(f"/api/tasks/{ids[0]}") as answer:
        assert tasks[0] == {name: value for name, value in (await answer.json()).items() if name != "attempts"}
    assert [path.name for path in tmp_path.iterdir()] == ["all.ndjson"]


async def test_filters_and_json(do: Do, api: Api, tmp_path: Path) -> None:
    await fill(api, 3)
    ids = await fill(api, 2, "other")
    file = tmp_path / "some"
    assert json.loads((await do("export", str(file), "--queue=other", "--json"))[1]) == {"file": str(file), "tasks": 2}
    assert [task["id"] for task in read(file)] == ids
    await fill(api, 1, "third")
    assert (await do("export", str(tmp_path / "one"), "--queue=third"))[1].startswith(f"1 task written to {tmp_path / 'one'} in ")


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
async def test_an_export_becomes_new_tasks_as_the_documents_say(do: Do, api: Api, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    program = re.search(r"jq -c '([^']+)' tasks.ndjson \| taskrunner task import -", text)
    assert program
    await api.create(**SCHEDULED, unique_key="k")
    started = await api.create(expires_at="2031-01-01T00:00:00Z")
    await api.sql("update tasks_live set attempt = 1, run_at = '2032-01-01' where id = %s", started["id"])
    await do("export", str(tmp_path / "out"))
    kept = subprocess.run(["jq", "-c", program[1], str(tmp_path / "out")], check=True, capture_output=True).stdout
    (tmp_path / "in").write_bytes(kept)
    code, out, err = await do("import", str(tmp_path / "in"))
    assert (code, out.partition(" in ")[0], err) == (0, "2 tasks created", "")
    await do("export", str(tmp_path / "again"))
    retried, scheduled = sorted(read(tmp_path / "again")[:2], key=lambda task: str(task["queue"]))
    assert {name: scheduled[name] for name in SCHEDULED} == SCHEDULED
    assert SCHEDULED.keys() | {"task_type", "delay", "unique_key", "on_conflict"} == TaskBody.__dataclass_fields__.keys()
    assert (retried["run_at"][:4], retried["expires_at"]) == ("2032", None)


async def test_a_token_without_payloads_exports_nothing(run: Do, api: Api, tmp_path: Path) -> None:
    ids, file = await fill(api, 1), tmp_path / "all"
    tokens = {}
    for scope in ("read", "payloads"):
        _, tokens[scope], _ = await run("token", "create", scope, f"--scopes={scope}", f"--db-dsn={api.dsn}")
    async with asyncio.timeout(15):
        while (await run("task", "list"))[0] == 0:  # the API looks for tokens now and then
            await asyncio.sleep(0.05)
    code, _, err = await run("task", "list")
    assert (code, "set TASKRUNNER_API_TOKEN (--api-token)" in err, err.count("\n")) == (1, True, 1)
    code, _, err = await run("task", "export", str(file), f"--api-token={tokens['read']}")
    assert (code, "the scope payloads" in err) == (2, True)
    assert (await run("task", "export", str(file), f"--api-token={tokens['payloads']}"))[0] == 0
    assert [task["id"] for task in read(file)] == ids


async def test_a_finished_file_is_not_touched(do: Do, api: Api, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("precious")
    code, _, err = await do("export", str(file))
    assert (code, err) == (2, f"taskrunner: {file} is there already and complete: name another file, or remove it\n")
    assert file.read_text() == "precious"


class Weak(Client):
    """A client whose service is away at first, and again after two pages."""

    pages = 0

    async def page(self, cursor: str | None = None, *, limit: int = 100, **filters: Any) -> Page:
        self.pages += 1
        if self.pages in (1, 4):
            raise Unreachable("the lights went out")
        return await super().page(cursor, limit=limit, **filters)


async def test_it_goes_on_where_it_was_broken_off(do: Do, api: Api, tmp_path: Path) -> None:
    ids = await fill(api, 1_777)
    file = tmp_path / "all"
    async with Weak(str(api.http._base_url)) as client:
        for _ in range(2):
            with pytest.raises(Unreachable):
                await exporting.export(client, str(file), {"tag": []}, as_json=False)
    assert [task["id"] for task in read(file)] == ids[:1_000]
    await fill(api, 10)  # newer tasks are not meant
    with file.open("ab") as torn:  # a page that was written when the place was not yet
        torn.write(b'{"id": "half a li')
    code, _, err = await do("export", str(file), "--queue=other")
    assert (code, "was begun with other filters" in err) == (2, True)
    code, out, _ = await do("export", str(file))
    assert (code, out.endswith(", 1,000 of them before")) == (0, True)
    assert [task["id"] for task in read(file)] == ids
    assert [path.name for path in tmp_path.iterdir()] == ["all"]


async def test_a_place_without_its_file_is_refused(do: Do, tmp_path: Path) -> None:
    (tmp_path / "x.place").write_text('{"size": 10, "tasks": 1, "cursor": "c", "filters": {"tag": []}}')
    code, _, err = await do("export", str(tmp_path / "x"))
    assert (code, "remove both and begin anew" in err) == (2, True)


async def test_standard_output_and_a_bar_on_the_terminal(api: Api) -> None:
    ids = await fill(api, 1_001)
    url = f"--api-url={api.http._base_url}"
    async with terminal("task", "export", "-", url, pipes=["stdout"]) as it:
        out, _ = await it.process.communicate()
        assert [json.loads(line)["id"] for line in out.splitlines()] == ids
        await it.sees("█")
        assert "tasks written" in it.shown.decode()


async def test_a_reader_that_has_enough_is_no_error(api: Api) -> None:
    await fill(api, 3_000)
    async with terminal("task", "list", "--limit=0", f"--api-url={api.http._base_url}", pipes=["stdout"]) as it:
        assert it.process.stdout
        await it.process.stdout.readline()
        it.process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]  # asyncio has no public way to close one's end
        assert await it.process.wait() == 141
        assert it.shown == b""
