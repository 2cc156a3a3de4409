"""``taskrunner worker``, ``queue`` and ``type``."""

import json

import pytest
from api.door import Api
from commands.shell import Do

from taskrunner.client import Lot
from taskrunner.commands.fleet import lines_of
from taskrunner.commands.words import fitted, span, width

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"


async def worker(api: Api, name: str = "box:1") -> str:
    rows = await api.sql(
        "insert into sessions (id, lease_until, name, version, lag, task_types, queues, slots) "
        "values (gen_random_uuid(), now() + interval '1 hour', %s, '1.2', 0.013, '{x,y}', '{*}', 10) returning id::text",
        name,
    )
    return str(rows[0][0])


async def test_queues_and_types_as_people_and_programs_read_them(run: Do, api: Api) -> None:
    assert (await run("queue", "list"))[1] == "there are none"
    for queue in ("a", "a", "b\x1b[2J"):
        await api.create(queue=queue)
    code, out, _ = await run("queue", "list")
    assert code == 0
    assert [row.split()[:4] for row in out.splitlines()] == [
        ["NAME", "READY", "SCHEDULED", "RUNNING"],
        ["a", "2", "0", "0"],
        ["b\\x1b[2J", "1", "0", "0"],
    ]
    assert [json.loads(line)["ready"] for line in (await run("type", "list", "--json"))[1].splitlines()] == [3]


@pytest.mark.parametrize("noun", ["queue", "type"])
async def test_pause_and_resume(noun: str, run: Do, api: Api) -> None:
    code, out, _ = await run(noun, "pause", "a/b", "c")
    assert (code, out) == (0, f"the {noun} a/b is paused\nthe {noun} c is paused")
    assert {row[:2] for row in await api.sql("select scope, name from gates where closed_until = 'infinity'")} == {
        (noun, "a/b"),
        (noun, "c"),
    }
    assert [row.split()[-1] for row in (await run(noun, "list"))[1].splitlines()[1:]] == ["paused", "paused"]
    assert json.loads((await run(noun, "resume", "a/b", "--json"))[1]) == {"name": "a/b", "paused": False}
    assert [json.loads(line)["paused"] for line in (await run(noun, "list", "--json"))[1].splitlines()] == [True]


async def test_a_name_that_is_none_does_not_keep_the_others_open(run: Do) -> None:
    code, out, err = await run("queue", "pause", "n" * 201, "b")
    assert (code, out, err.count("\n")) == (2, "the queue b is paused", 1)


@pytest.mark.parametrize("words", [["queue", "pause"], ["type", "resume"], ["worker", "drain"]])
async def test_no_name_is_a_misuse(words: list[str], run: Do) -> None:
    code, out, err = await run(*words, "")
    assert (code, out, err) == (2, "", "taskrunner: '': an empty text cannot stand in an address, nor can dots: give an id or a name\n")


async def test_workers(run: Do, api: Api) -> None:
    session = await worker(api)
    code, out, _ = await run("worker", "list")
    assert code == 0
    cells = out.splitlines()[1].split()
    assert cells[:6] == [session, "box:1", "1.2", "LIVE", "0", "10"]
    assert " 13 ms " in out
    shown = json.loads((await run("worker", "list", "--json"))[1])
    assert (shown["session"], shown["task_types"]) == (session, ["x", "y"])


async def test_drain_tells_the_worker_and_waits_for_its_end(run: Do, api: Api) -> None:
    session = await worker(api)
    code, out, _ = await run("worker", "drain", session)
    assert (code, out) == (0, f"{session}  box:1 is DRAINING and holds 0 tasks")
    assert (await run("worker", "drain", session, "--wait=0"))[0] == 1
    await api.sql("update sessions set lease_until = now() + interval '1 hour'")
    await api.sql(  # it ends while we wait
        "create function end_it() returns trigger language plpgsql as "
        "$$ begin new.status := 'DEAD'; new.dead_at := now(); return new; end $$"
    )
    await api.sql("create trigger ends before update on sessions for each row execute function end_it()")
    ended = await worker(api, "box:2")
    code, out, _ = await run("worker", "drain", ended, "--wait=30", "--json")
    assert (code, json.loads(out)["status"]) == (0, "DEAD")
    ended = await worker(api, "box:3")
    assert (await run("worker", "drain", ended, "--wait=30"))[:2] == (0, f"{ended}  box:3 has ended")


async def test_a_worker_that_is_not_there(run: Do, api: Api) -> None:
    code, out, err = await run("worker", "drain", NOBODY)
    assert (code, out, err.count("\n")) == (3, "", 1)
    code, _, err = await run("worker", "drain", "x")
    assert (code, "UUID" in err) == (2, True)
    session = await worker(api)
    code, out, err = await run("worker", "drain", NOBODY, session, "--wait=0")
    assert (code, out.split()[0], err.count("\n")) == (3, session, 1)
    assert err.startswith(f"taskrunner: '{NOBODY}': there is no worker session with this id")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (-1, "0.0 s"), (3.21, "3.2 s"), (61, "1 min 1 s"), (7_380, "2 h 3 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert span(seconds) == words


def test_columns_are_as_wide_as_a_terminal_shows_them() -> None:
    lots = [Lot(name=name, ready=1, scheduled=0, running=0, oldest_ready_age=None, paused=False) for name in ("数据", "e\u0301", "abc")]
    assert len({width(line) for line in lines_of(lots)[1:]}) == 1
    assert (fitted("数据库", 5), fitted("abc", 3), fitted("abcd", 3), fitted("x", 0)) == ("数据…", "abc", "ab…", "")
