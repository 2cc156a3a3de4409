"""kit.signals, on real processes and real signals."""

import asyncio
import signal
import subprocess
import sys

import pytest

from taskrunner.kit.signals import stop_on_signals, unless

PROGRAM = """
import asyncio
from taskrunner.kit import log
from taskrunner.kit.signals import stop_on_signals

log.configure("info", "json")

async def main():
    async with stop_on_signals() as stop:
        print("ready", flush=True)
        await stop.wait()
        print("stopping", flush=True)
        {then}

asyncio.run(main())
"""


def start(then: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.format(then=then)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(number: signal.Signals) -> None:
    with start("pass") as process:
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("stopping\n", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_at_once(number: signal.Signals) -> None:
    with start("await asyncio.sleep(3600)") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(number)
        process.communicate(timeout=20)
    assert process.returncode == 128 + number


async def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            await stop.wait()
    assert signal.getsignal(signal.SIGTERM) == before


async def test_unless_gives_the_body_up_where_it_stands() -> None:
    stop, left = asyncio.Event(), []
    asyncio.get_running_loop().call_soon(stop.set)
    async with asyncio.timeout(5), unless(stop):
        try:
            await asyncio.Event().wait()
        finally:
            left.append("cleaned")
    assert left == ["cleaned"]
    assert stop.is_set()


async def test_unless_lets_the_body_finish_and_leaves_nothing_behind() -> None:
    stop, before = asyncio.Event(), asyncio.all_tasks()
    async with unless(stop):
        await asyncio.sleep(0)
    stop.set()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_unless_hides_no_error() -> None:
    with pytest.raises(TimeoutError, match="the body's own"):
        async with unless(asyncio.Event()):
            raise TimeoutError("the body's own")


async def test_unless_passes_a_cancellation_on() -> None:
    async def body() -> None:
        async with unless(asyncio.Event()):
            await asyncio.Event().wait()

    running = asyncio.ensure_future(body())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
