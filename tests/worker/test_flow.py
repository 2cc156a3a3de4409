"""How much a worker asks for."""

import asyncio
from typing import Any

import pytest
from worker.bench import Bench, open_bench

from taskrunner.sdk import Context, task
from taskrunner.wire.pb.taskrunner.v1 import WorkerMessage
from taskrunner.worker import execute, flow
from taskrunner.worker.flow import MOST, SHOWING, SPRINT, prefetch_for

NAP = 0.1


@task("noop")
async def noop(ctx: Context, payload: Any) -> None: ...


@task("nap")
async def nap(ctx: Context, payload: Any) -> None:
    await asyncio.sleep(NAP)


@pytest.mark.parametrize(
    ("rate", "prefetch"),
    [(0, 0), (399, 0), (400, 8), (1_000, 16), (10_000, 256), (17_000, 256), (30_000, 1_024), (50_000, 2_048), (10_000_000, MOST)],
)
def test_prefetch_follows_the_pace_in_powers_of_two(rate: float, prefetch: int) -> None:
    assert prefetch_for(rate) == prefetch


async def test_a_busy_worker_prefetches_and_an_idle_one_runs_no_timer() -> None:
    async with open_bench(noop, slots=10) as bench:
        flow = bench.session.flow
        assert flow._timer is None

        def feed() -> bool:
            bench.give("noop", *range(500))
            return flow.capacity()[1] >= 64

        await bench.until(feed)
        bench.collect()
        assert any(message.capacity and message.capacity.prefetch >= 8 and message.capacity.slots == 10 for message in bench.messages)
        await bench.until(lambda: flow._timer is None)
        bench.collect()
        last = [message.capacity for message in bench.messages if message.capacity][-1]
        assert (last.slots, last.prefetch) == (10, 0)
        before = len(bench.messages)
        bench.collect()
        assert len(bench.messages) == before  # said once


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look but those that the test makes."""
    monkeypatch.setattr(flow, "FIRST", 60)
    monkeypatch.setattr(flow, "TICK", 60)


async def burst(bench: Bench, task_type: str, n: int) -> list[WorkerMessage]:
    """What a worker says that was given ``n`` tasks, once they are worked off."""
    bench.give(task_type, *range(n))
    async with asyncio.timeout(10):
        while not bench.executor.idle:
            await asyncio.sleep(0)
    bench.collect()
    return bench.messages


@pytest.mark.usefixtures("unhurried")
async def test_the_outcomes_of_a_burst_take_along_what_the_worker_asks_for_next() -> None:
    async with open_bench(noop, slots=100) as bench:
        capacity, outcomes = await burst(bench, "noop", 100)
        assert capacity.capacity is not None
        assert capacity.capacity.slots == 100
        assert 64 <= capacity.capacity.prefetch <= SPRINT
        assert outcomes.outcomes is not None
        assert len(outcomes.outcomes.ids) == 100 * 16


@pytest.mark.usefixtures("unhurried")
async def test_a_few_quick_tasks_show_no_pace() -> None:
    async with open_bench(noop, slots=100) as bench:
        (outcomes,) = await burst(bench, "noop", SHOWING - 1)
        assert outcomes.outcomes is not None


@pytest.mark.usefixtures("unhurried")
async def test_slow_tasks_that_end_together_show_how_long_they_took() -> None:
    async with open_bench(nap, slots=100) as bench:
        asyncio.get_running_loop().call_later(0.08, bench.session.flow._look)  # just before they end
        capacity, _ = await burst(bench, "nap", 100)
        assert capacity.capacity is not None
        assert capacity.capacity.prefetch <= prefetch_for(100 / NAP)


@pytest.mark.usefixtures("unhurried")
async def test_a_pace_outlasts_a_look_that_finds_nothing_to_do_and_is_forgotten_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_bench(noop, slots=100) as bench:
        monkeypatch.setattr(flow, "STALE", 60)
        await burst(bench, "noop", 100)
        look, capacity = bench.session.flow._look, bench.session.flow.capacity
        shown = capacity()[1]
        look()  # this one finds the burst
        look()
        assert capacity()[1] == shown >= 64
        monkeypatch.setattr(flow, "STALE", 0)
        look()
        assert capacity()[1] == 0


async def test_a_full_outbox_stops_the_start_of_tasks_until_it_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "MOST_UNCONFIRMED", 50)
    async with open_bench(noop) as bench:
        ids = bench.give("noop", *range(120))
        await bench.until(lambda: len(bench.ended) == 50)
        await asyncio.sleep(0.02)
        bench.collect()
        assert (bench.session.outbox.size, bench.executor.waiting) == (50, 70)
        bench.session.outbox.settled(range(1, 100))
        bench.executor.pump()
        await bench.until(lambda: len(bench.ended) == 100)
        bench.session.outbox.settled(range(1, 100))
        bench.executor.pump()
        await bench.outcomes(ids)
