"""``taskrunner top``: on a terminal, without one, and what fits."""

import asyncio
import json
import signal
import termios

import pytest
from api.door import Api
from commands.shell import MAIN, Do, terminal

from taskrunner.client import Lot
from taskrunner.commands.top import Look, picture

MINUTE = {
    "created": 60,
    "completed": 120,
    "failed": 0,
    "cancelled": 0,
    "retried": 6,
    "start_p50": 0.002,
    "start_p95": 1.5,
    "start_p99": None,
}


async def test_on_a_terminal_it_follows_what_happens_and_leaves_no_trace(api: Api) -> None:
    await api.create(queue="first")
    async with terminal("top", "--interval=0.2", f"--api-url={api.http._base_url}") as it:
        before = termios.tcgetattr(it._file)
        it.resize(40, 100)
        await it.sees("first")
        assert "ready 1 " in it.shown.decode()
        await api.create(queue="second")
        await it.sees("second")
        it.resize(5, 20)
        it.process.send_signal(signal.SIGWINCH)
        await it.sees("…")
        it.press(b"q")
        async with asyncio.timeout(10):
            assert await it.process.wait() == 0
        await it.sees("\x1b[?1049l")
        assert it.shown.count(b"\x1b[?1049h") == 1
        assert termios.tcgetattr(it._file)[3] == before[3] | termios.ECHO | termios.ICANON


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_as_q_does(number: signal.Signals, api: Api) -> None:
    async with terminal("top", f"--api-url={api.http._base_url}") as it:
        await it.sees("QUEUES")
        it.process.send_signal(number)
        async with asyncio.timeout(10):
            assert await it.process.wait() == 0
        await it.sees("\x1b[?1049l")


async def test_a_service_that_goes_away_is_said_and_waited_for(api: Api) -> None:
    async with terminal("top", "--interval=0.2", f"--api-url={api.http._base_url}") as it:
        await it.sees("QUEUES")
        await api.sql("alter table gates rename to elsewhere")
        await it.sees("the schema is not there")
        await api.sql("alter table elsewhere rename to gates")
        shown = it.shown.count(b"q quits")
        await it.sees("q quits", times=shown + 1)


async def test_one_picture_without_a_terminal(api: Api) -> None:
    for n in range(30):
        await api.create(queue=f"queue-{n}")
    command = [*MAIN, "top", f"--api-url={api.http._base_url}"]
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"\x1b" not in out
    assert out.decode().startswith("ready 30 (the oldest for ")
    assert all(f"\nqueue-{n} " in out.decode() for n in range(30))


async def test_as_json(run: Do, api: Api) -> None:
    await api.create(queue="a")
    document = json.loads((await run("top", "--json"))[1])
    assert document["tasks"]["PENDING"] == 1
    assert [lot["name"] for lot in document["queues"]] == ["a"]
    assert document["workers"] == []
    assert document["minute"]["completed"] == 0


async def test_an_interval_that_is_none(run: Do) -> None:
    code, _, err = await run("top", "--interval=0")
    assert (code, err) == (2, "taskrunner: --interval must be 0.2 seconds or more, not 0\n")


def lots(n: int) -> list[Lot]:
    return [Lot(name=f"q{i}", ready=i, scheduled=0, running=0, oldest_ready_age=1.0 * i, paused=False) for i in range(n)]


def test_a_picture_never_has_more_lines_than_the_terminal_and_says_what_is_missing() -> None:
    look = Look(10.0, {"COMPLETED": 500}, MINUTE, lots(50), lots(3), [])
    for tall in range(1, 80):
        lines = picture(look, None, 60, tall)
        assert len(lines) <= tall
        assert max(map(len, lines)) <= 60
    lines = picture(look, None, 60, 30)
    shown = [line.split()[0] for line in lines if line.startswith("q")]
    assert shown[0] == "q49"  # the busiest first
    missing = next(line for line in lines if line.endswith(" more"))
    assert missing == f"and {50 - sum(name in {f'q{n}' for n in range(3, 50)} for name in shown)} more"


def test_rates_are_between_two_looks_or_those_of_the_last_minute() -> None:
    before, look = (Look(at, {"COMPLETED": n, "FAILED": f}, MINUTE, [], [], []) for at, n, f in ((10.0, 500, 9), (12.0, 1_500, 3)))
    assert picture(look, before, 200, 10)[1:3] == [
        "completed 1,500 (500/s)   failed 3 (0/s)   cancelled 0 (0/s)",
        "the last minute: 1/s created, 0/s tried again; start after p50 2 ms, p95 1.5 s, p99 –",
    ]
    assert picture(look, None, 200, 10)[1] == "completed 1,500 (2/s)   failed 3 (0/s)   cancelled 0 (0/s)"
