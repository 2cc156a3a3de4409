"""kit.loops: the one shape of periodic work."""

import asyncio
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from taskrunner.kit.loops import every, first_of, jittered, start

LONG = 3600.0


class Passes:
    """Counts passes; ``trouble`` is what the next ones raise, in order."""

    def __init__(self, *trouble: Exception | None) -> None:
        self.made = 0
        self.done = asyncio.Semaphore(0)
        self.trouble = list(trouble)

    async def __call__(self) -> None:
        self.made += 1
        self.done.release()
        error = self.trouble.pop(0) if self.trouble else None
        if error is not None:
            raise error


async def test_the_first_pass_is_at_once_and_stop_ends_a_long_wait() -> None:
    stop, passes = asyncio.Event(), Passes()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(every("counter", LONG, passes, stop=stop))
        await passes.done.acquire()
        stop.set()
    assert passes.made == 1


async def test_passes_repeat_by_themselves() -> None:
    stop, passes = asyncio.Event(), Passes()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(every("counter", 0.001, passes, stop=stop))
        for _ in range(5):
            await passes.done.acquire()
        stop.set()


async def test_no_pass_once_stopped() -> None:
    stop, passes = asyncio.Event(), Passes()
    stop.set()
    await every("counter", LONG, passes, stop=stop)
    assert passes.made == 0


async def test_wake_brings_the_next_pass_forward() -> None:
    stop, wake, passes = asyncio.Event(), asyncio.Event(), Passes()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(every("counter", LONG, passes, stop=stop, wake=wake))
        for _ in range(3):
            await passes.done.acquire()
            wake.set()
        await passes.done.acquire()
        stop.set()
    assert passes.made == 4


async def test_what_rings_during_a_pass_is_not_lost() -> None:
    stop, wake = asyncio.Event(), asyncio.Event()
    made = 0

    async def run_once() -> None:
        nonlocal made
        made += 1
        if made == 1:
            wake.set()
        else:
            stop.set()

    async with asyncio.timeout(5):
        await every("counter", LONG, run_once, stop=stop, wake=wake)
    assert made == 2


async def test_expected_trouble_is_logged_and_the_loop_goes_on() -> None:
    stop, passes = asyncio.Event(), Passes(OSError("cut"), OSError("cut again"))
    with capture_logs() as lines:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(every("counter", 0.001, passes, stop=stop, expected=(OSError,)))
            for _ in range(3):
                await passes.done.acquire()
            stop.set()
    assert [(line["loop"], line["error"]) for line in lines] == [("counter", "OSError: cut"), ("counter", "OSError: cut again")]


async def test_trouble_is_not_hurried_by_wake() -> None:
    stop, wake, passes = asyncio.Event(), asyncio.Event(), Passes(OSError("cut"))
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(every("counter", LONG, passes, stop=stop, wake=wake, expected=(OSError,)))
        await passes.done.acquire()
        wake.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert passes.made == 1
        stop.set()


async def test_anything_else_is_the_callers_to_see() -> None:
    with pytest.raises(ZeroDivisionError):
        await every("counter", LONG, Passes(ZeroDivisionError()), expected=(OSError,))


async def test_a_loop_that_dies_is_said_at_once_and_one_that_is_cancelled_is_not() -> None:
    async def closing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert [(one["loop"], one["log_level"], type(one["exc_info"])) for one in said] == [("dying", "error", OSError)]

    with capture_logs() as said, pytest.raises(ExceptionGroup):
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            start(group, {"going on": closing(), "dying": every("dying", LONG, Passes(OSError()))})
    assert len(said) == 1


async def test_it_can_be_cancelled_and_leaves_no_task_behind() -> None:
    passes, before = Passes(), asyncio.all_tasks()
    running = asyncio.ensure_future(every("counter", LONG, passes, stop=asyncio.Event(), wake=asyncio.Event()))
    await passes.done.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("then", [None, OSError("broken off")])
async def test_a_cancellation_that_the_pass_swallowed_still_holds(then: Exception | None) -> None:
    begun = asyncio.Event()

    async def run_once() -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if then is not None:
            raise then

    running = asyncio.ensure_future(every("counter", LONG, run_once, expected=(OSError,)))
    await begun.wait()
    running.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_first_of_ends_by_time_too() -> None:
    async with asyncio.timeout(5):
        await first_of([asyncio.Event()], 0.001)
        await first_of([], 0.001)


def test_waits_differ_by_a_tenth_at_most() -> None:
    waits = {jittered(10) for _ in range(200)}
    assert all(9 <= wait <= 11 for wait in waits)
    assert max(waits) - min(waits) > 1
