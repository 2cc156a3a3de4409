"""Attempts that are cancelled, overrun, lost, or never start."""

import asyncio
import time
from typing import Any

import pytest
from worker.bench import Bench, key, open_bench

from taskrunner.sdk import Context, task
from taskrunner.wire.pb.taskrunner.v1 import Outcome, SchedulerMessage, Settled


@task("echo")
async def echo(ctx: Context, payload: Any) -> Any:
    return payload


@task("nap")
async def nap(ctx: Context, payload: float) -> str:
    await asyncio.sleep(payload)
    return "awake"


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


async def test_a_session_is_drained_when_all_that_it_held_is_confirmed() -> None:
    async with open_bench(nap) as bench:
        (id_,) = bench.give("nap", 0.05)
        await running(bench)
        bench.executor.stop()
        assert not bench.session.drained
        await bench.outcomes([id_])
        assert not bench.session.drained
        bench.session.receive(SchedulerMessage(settled=Settled(batches=[1])))
        assert bench.session.drained


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
