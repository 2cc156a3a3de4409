"""Async handlers, inline and suspended."""

import asyncio
import contextvars
from typing import Any

import pytest
from worker.bench import open_bench

from taskrunner.sdk import Context, Fail, Retry, Snooze, task
from taskrunner.wire.pb.taskrunner.v1 import Outcome

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


@task("echo")
async def echo(ctx: Context, payload: Any) -> Any:
    return payload


@task("nap")
async def nap(ctx: Context, payload: float) -> str:
    await asyncio.sleep(payload)
    return "awake"


async def test_an_inline_handler_needs_no_task_of_its_own() -> None:
    seen = set()

    @task("who")
    async def who(ctx: Context, payload: Any) -> None:
        seen.add(asyncio.current_task())

    async with open_bench(who) as bench:
        await bench.outcomes(bench.give("who", *range(200)))
    assert len(seen) <= 3  # runners, one after the other when a slice of time is over


async def test_results_come_back_with_their_ids_and_epochs() -> None:
    async with open_bench(echo) as bench:
        ids = bench.give("echo", None, {"a": [1, "ü", None]}, False, 0, "")
        assert [one.result for one in await bench.outcomes(ids)] == [None, {"a": [1, "ü", None]}, False, 0, ""]
        assert {one.outcome for one in bench.ended.values()} == {Outcome.COMPLETED}


async def test_the_context_says_what_the_wire_said() -> None:
    seen: list[Context] = []

    @task("look")
    async def look(ctx: Context, payload: Any) -> None:
        seen.append(ctx)

    async with open_bench(look) as bench:
        (id_,) = bench.give("look", {}, attempt=3, timeout=12)
        await bench.outcomes([id_])
    (ctx,) = seen
    assert (ctx.task_id.replace("-", ""), ctx.attempt, ctx.max_attempts, ctx.timeout) == (id_.hex(), 3, 5, 12)
    assert (ctx.task_type, ctx.queue, ctx.run_at.year, ctx.cancelled) == ("look", "default", 2000, False)


async def test_suspended_handlers_run_together_and_each_in_its_own_task() -> None:
    tasks, gate = set(), asyncio.Event()

    @task("meet")
    async def meet(ctx: Context, payload: int) -> int:
        tasks.add(asyncio.current_task())
        if len(tasks) == 50:
            gate.set()
        await gate.wait()
        return payload

    async with open_bench(meet) as bench:
        done = await bench.outcomes(bench.give("meet", *range(50)))
    assert [one.result for one in done] == list(range(50))
    assert len(tasks) == 50


async def test_at_most_slots_run_at_once() -> None:
    now, most = 0, 0

    @task("count")
    async def count(ctx: Context, payload: Any) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1

    async with open_bench(count, slots=7) as bench:
        await bench.outcomes(bench.give("count", *range(60)))
    assert most == 7


async def test_asyncio_timeout_in_the_first_step_is_what_it_always_is() -> None:
    @task("own-timeout")
    async def own_timeout(ctx: Context, payload: Any) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            return "my own"
        return "never"

    async with open_bench(own_timeout, echo) as bench:
        assert (await bench.run("own-timeout")).result == "my own"
        assert (await bench.run("echo", 1)).result == 1


async def test_task_groups_and_shielded_waits_work() -> None:
    @task("group")
    async def group(ctx: Context, payload: int) -> int:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(asyncio.sleep(0, n)) for n in range(payload)]
        return sum(part.result() for part in parts)

    async with open_bench(group) as bench:
        assert [one.result for one in await bench.outcomes(bench.give("group", 3, 4))] == [3, 6]


@pytest.mark.parametrize("suspends", [False, True])
async def test_context_variables_do_not_leak_into_the_next_handler(suspends: bool) -> None:
    seen = []

    @task("bind")
    async def bind(ctx: Context, payload: str) -> None:
        seen.append(VARIABLE.get("nothing"))
        VARIABLE.set(payload)
        if suspends:
            await asyncio.sleep(0)
        assert VARIABLE.get() == payload

    async with open_bench(bind) as bench:
        done = await bench.outcomes(bench.give("bind", "a", "b", "c"))
    assert [one.outcome for one in done] == [Outcome.COMPLETED] * 3
    assert seen == ["nothing"] * 3


async def test_a_handler_that_cancels_its_own_task_harms_nobody_else() -> None:
    @task("self-cancel")
    async def self_cancel(ctx: Context, payload: Any) -> str:
        me = asyncio.current_task()
        assert me is not None
        me.cancel()
        return "done"

    async with open_bench(self_cancel, nap) as bench:
        ids = bench.give("self-cancel", 1) + bench.give("nap", 0.001)
        assert [one.result for one in await bench.outcomes(ids)] == ["done", "awake"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), BaseException("base")])
@pytest.mark.parametrize("suspends", [False, True])
async def test_nothing_that_a_handler_raises_kills_the_worker(error: BaseException, suspends: bool) -> None:
    @task("raise")
    async def raise_(ctx: Context, payload: Any) -> None:
        if suspends:
            await asyncio.sleep(0)
        raise error

    async with open_bench(raise_, echo) as bench:
        if suspends and isinstance(error, GeneratorExit):
            return  # a coroutine that raises it is one that is being closed
        done = await bench.run("raise")
        assert (done.outcome, done.error.partition(":")[0]) == (Outcome.RETRY, type(error).__name__)
        assert (await bench.run("echo", 1)).result == 1


async def test_verdicts() -> None:
    @task("decide")
    async def decide(ctx: Context, payload: str) -> None:
        raise {
            "retry": Retry("busy", after=12.5),
            "again": Retry("again"),
            "snooze": Snooze(60),
            "fail": Fail("no such customer"),
        }[payload]

    async with open_bench(decide, backoff_base=4) as bench:
        retry, again, snooze, fail = await bench.outcomes(bench.give("decide", "retry", "again", "snooze", "fail"))
        assert (retry.outcome, retry.error, retry.delay) == (Outcome.RETRY, "busy", 12.5)
        assert (again.outcome, again.error, 0 <= again.delay <= 4) == (Outcome.RETRY, "again", True)
        assert (snooze.outcome, snooze.delay) == (Outcome.SNOOZED, 60)
        assert (fail.outcome, fail.error, fail.traceback) == (Outcome.FAILED, "no such customer", "")


async def test_errors_are_retried_with_the_backoff_of_the_handler() -> None:
    @task("broken", backoff_base=100, backoff_cap=150)
    async def broken(ctx: Context, payload: Any) -> None:
        raise LookupError("not here")

    async with open_bench(broken) as bench:
        done = await bench.outcomes(bench.give("broken", *range(40), attempt=4))
    assert {(one.outcome, one.error) for one in done} == {(Outcome.RETRY, "LookupError: not here")}
    assert 100 < max(one.delay for one in done) <= 150
    first = done[0].traceback
    assert first.startswith("Traceback")
    assert first.count("  File ") == 1  # the handler's own frame and none of ours
    assert first.endswith("LookupError: not here\n")
