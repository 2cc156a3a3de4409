"""Async handlers: inline, suspended, cancelled, timed out."""

import asyncio
import contextvars
import time
from typing import Any

import pytest
from worker.bench import Bench, key, open_bench

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


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_handler_that_overruns_is_timed_out(swallows: bool) -> None:
    @task("slow")
    async def slow(ctx: Context, payload: Any) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not swallows:
                raise
        return "in the end"

    async with open_bench(slow) as bench:
        done = await bench.run("slow", timeout=0.05)
        if swallows:  # it has finished: running it again would be worse
            assert (done.outcome, done.result) == (Outcome.COMPLETED, "in the end")
        else:
            assert (done.outcome, done.error) == (Outcome.RETRY, "timed out after 0.05 s")
        assert 40 <= done.run_ms <= 5_000


async def test_a_handler_that_will_not_end_keeps_its_slot_but_not_its_outcome() -> None:
    release = asyncio.Event()

    @task("stubborn")
    async def stubborn(ctx: Context, payload: Any) -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    async with open_bench(stubborn, echo, slots=2, cancel_grace=0.05) as bench:
        done = await bench.run("stubborn", timeout=0.05)
        assert (done.outcome, done.error) == (Outcome.RETRY, "timed out after 0.05 s")
        assert bench.session.flow.capacity() == (1, 0)
        assert (await bench.run("echo", 1)).result == 1
        release.set()
        await bench.until(lambda: bench.session.flow.capacity() == (2, 0))
        assert sum(message.outcomes is not None and message.outcomes.outcome is Outcome.RETRY for message in bench.messages) == 1


async def running(bench: Bench, n: int = 1) -> None:
    await bench.until(lambda: len(bench.executor.floor.running) == n)


async def test_cancel_reaches_what_runs_and_what_waits() -> None:
    cleaned = []

    @task("long")
    async def long(ctx: Context, payload: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(payload)

    async with open_bench(long, slots=1) as bench:
        first, second, third = bench.give("long", 1, 2, 3)
        await running(bench)
        bench.executor.cancel({key(first), key(second), b"?" * 24})
        assert [one.outcome for one in await bench.outcomes([first, second])] == [Outcome.CANCELLED] * 2
        await running(bench)
        assert cleaned == [1]
        assert third not in bench.ended


async def test_a_handler_that_finishes_first_wins_over_a_cancel() -> None:
    @task("commit")
    async def commit(ctx: Context, payload: Any) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "committed"
        return "never"

    async with open_bench(commit) as bench:
        (id_,) = bench.give("commit", 1)
        await running(bench)
        bench.executor.cancel({key(id_)})
        bench.executor.cancel({key(id_)})  # asked twice, as a scheduler may
        (done,) = await bench.outcomes([id_])
        assert (done.outcome, done.result) == (Outcome.COMPLETED, "committed")


async def test_lost_attempts_are_stopped_and_not_reported() -> None:
    stopped = asyncio.Event()

    @task("long")
    async def long(ctx: Context, payload: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    async with open_bench(long, slots=1) as bench:
        first, second = bench.give("long", 1, 2)
        await running(bench)
        bench.executor.lose({key(first), key(second)})
        await bench.until(stopped.is_set)
        await bench.until(lambda: not bench.executor.floor.lingering)
        assert (bench.ended, bench.executor.waiting, bench.session.outbox.size) == ({}, 0, 0)


async def test_what_runs_for_a_while_is_told_once() -> None:
    async with open_bench(nap, echo) as bench:
        (slow,) = bench.give("nap", 5)
        bench.give("echo", 1, 2, 3)
        await bench.until(lambda: any(message.started for message in bench.messages))
        await asyncio.sleep(0.2)
        bench.collect()
        told = [message.started.ids for message in bench.messages if message.started]
        assert told == [slow]
        bench.executor.floor.forget_told()  # a new stream
        bench.collect()
        assert [message.started.ids for message in bench.messages if message.started] == [slow, slow]


async def test_nothing_starts_without_trust_in_the_lease() -> None:
    async with open_bench(echo, trusted=False) as bench:
        ids = bench.give("echo", 1, 2)
        await asyncio.sleep(0.05)
        bench.collect()
        assert bench.ended == {}
        bench.session.renewed(b"another session", time.monotonic() + 100)
        assert bench.executor.trusted_until == 0
        bench.session.renewed(bench.session.id, time.monotonic() + 100)
        assert [one.result for one in await bench.outcomes(ids)] == [1, 2]


async def test_what_waits_too_long_for_a_slot_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.worker.flow.PATIENCE", 0.2)
    async with open_bench(nap, slots=1) as bench:
        first, second, third = bench.give("nap", 60, 1, 1)
        assert [one.outcome for one in await bench.outcomes([second, third])] == [Outcome.RELEASED] * 2
        assert first not in bench.ended


async def test_stopping_gives_back_what_waits_and_what_still_comes() -> None:
    async with open_bench(nap, slots=1) as bench:
        first, second = bench.give("nap", 0.05, 60)
        await running(bench)
        bench.executor.stop()
        (late,) = bench.give("nap", 0)
        done = await bench.outcomes([first, second, late])
        assert [one.outcome for one in done] == [Outcome.COMPLETED, Outcome.RELEASED, Outcome.RELEASED]
        assert bench.session.flow.capacity() == (0, 0)
        assert sum(message.goodbye is not None for message in bench.messages) == 1


async def test_what_the_grace_cuts_short_does_not_lose_its_attempt() -> None:
    async with open_bench(nap) as bench:
        (id_,) = bench.give("nap", 60)
        await running(bench)
        bench.executor.stop()
        bench.executor.interrupt()
        (done,) = await bench.outcomes([id_])
        assert (done.outcome, done.delay) == (Outcome.SNOOZED, 0)
        async with asyncio.timeout(1):
            await bench.executor.floor.idle()
