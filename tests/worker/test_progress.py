"""What handlers say of themselves on the way, and how often that is sent; what a task says about its retries."""

import asyncio
import time
from typing import Any

import pytest
from worker import child_tasks
from worker.bench import Bench, open_bench, tasks

from taskrunner.process import loop_factory
from taskrunner.sdk import Context, task
from taskrunner.wire.columns import floats, split
from taskrunner.wire.pb.taskrunner.v1 import Outcome, Progress, SchedulerMessage
from taskrunner.worker import progress
from taskrunner.worker.progress import PAUSE, Reporter

IN_CHILDREN = [value for value in vars(child_tasks).values() if hasattr(value, "__taskrunner_handler__")]


@task("inline")
async def inline(ctx: Context, payload: Any) -> None:
    await ctx.progress(0.5, "half")
    await ctx.progress(1, "all")


@task("threaded")
def threaded(ctx: Context, payload: Any) -> None:
    ctx.progress(0.25, "a \0 b" + "x" * 1_000)


@task("steps")
async def steps(ctx: Context, payload: int) -> None:
    for n in range(payload):
        await ctx.progress(n / payload, str(n))
        await asyncio.sleep(0.01)


@task("wrong")
async def wrong(ctx: Context, payload: float) -> None:
    await ctx.progress(payload)


@task("fails")
async def fails(ctx: Context, payload: Any) -> None:
    raise RuntimeError


def told(bench: Bench, id_: bytes) -> list[tuple[float, str]]:
    """All progress of the attempt that was sent, in order."""
    sent = [message.progress for message in bench.messages if message.progress is not None]
    rows = [row for one in sent for row in zip(split(one.ids, 16), floats(one.fractions), one.messages, strict=True)]
    return [(fraction, message) for found, fraction, message in rows if found == id_]


async def test_the_last_word_of_a_short_attempt_goes_before_its_outcome() -> None:
    async with open_bench(inline) as bench:
        ids = bench.give("inline", *range(100))
        await bench.outcomes(ids)
        assert [told(bench, id_) for id_ in ids] == [[(1.0, "all")]] * 100
        kinds = ["progress" if message.progress else "outcomes" for message in bench.messages if message.progress or message.outcomes]
        assert kinds[0] == "progress"


async def test_a_long_attempt_is_heard_twice_a_second_at_most() -> None:
    async with open_bench(steps) as bench:
        began = time.monotonic()
        ids = bench.give("steps", 100, 100)
        await bench.outcomes(ids)
        seconds = time.monotonic() - began
        for id_ in ids:
            words = told(bench, id_)
            assert 2 <= len(words) <= seconds / PAUSE + 2
            assert words == sorted(words)
            assert words[-1][1] == "99"


def test_an_attempt_is_heard_again_and_again_while_nothing_else_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PAUSE", 0.05)
    heard: list[Progress] = []

    async def talk() -> None:
        reporter = Reporter(lambda: heard.extend(filter(None, [reporter.take([bytes(24)])])))
        async with asyncio.timeout(10):
            while len(heard) < 20:
                reporter.report(bytes(16), bytes(8), 0.5, "on the way")
                await asyncio.sleep(0.004)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:  # uvloop, whose timers may be half a millisecond early
        began = time.monotonic()
        runner.run(talk())
    assert 19 * 0.05 <= time.monotonic() - began


async def test_threads_and_children_are_heard_too() -> None:
    async with open_bench(threaded, *IN_CHILDREN, modules=["worker.child_tasks"]) as bench:
        (id_,) = bench.give("threaded", None)
        await bench.outcomes([id_])
        assert told(bench, id_) == [(0.25, ("a \N{REPLACEMENT CHARACTER} b" + "x" * 1_000)[:500])]
        (id_,) = bench.give("child.progress", 50)
        assert (await bench.outcomes([id_]))[0].result == "said"
        assert told(bench, id_)[-1] == (1.0, "step 50")


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
async def test_a_progress_that_is_none_is_an_error_of_the_handler(fraction: float) -> None:
    async with open_bench(wrong) as bench:
        ended = await bench.run("wrong", fraction)
        assert (ended.outcome, ended.error) == (Outcome.RETRY, f"ValueError: progress is a number from 0 to 1, not {fraction}")


@pytest.mark.parametrize(
    ("backoff", "low", "high"),
    [
        (b'{"kind": "constant", "base": 7}', 7, 7),
        (b'{"kind": "linear", "base": 7}', 21, 21),
        (b'{"kind": "linear", "base": 7, "cap": 10}', 10, 10),
        (b'{"kind": "linear"}', 3, 3),
        (b'{"base": 0.5}', 0, 2),
        (b'{"kind": "cubic"}', 0, 4),
        (b"[", 0, 4),
        (b"", 0, 4),
    ],
)
async def test_a_task_s_own_backoff_comes_first(backoff: bytes, low: float, high: float) -> None:
    async with open_bench(fails, backoff_base=1) as bench:
        message = tasks("fails", [None] * 20, attempt=3)
        message.backoffs = [backoff] * 20
        bench.session.receive(SchedulerMessage.parse(bytes(SchedulerMessage(tasks=message))))
        delays = [ended.delay for ended in await bench.outcomes(split(message.ids, 16))]
        assert low <= min(delays) <= max(delays) <= high
        assert max(delays) > high / 4
