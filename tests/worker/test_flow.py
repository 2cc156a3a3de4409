"""How much a worker asks for."""

import asyncio
from typing import Any

import pytest
from worker.bench import open_bench

from taskrunner.sdk import Context, task
from taskrunner.worker import execute
from taskrunner.worker.flow import MOST, prefetch_for


@task("noop")
async def noop(ctx: Context, payload: Any) -> None: ...


@pytest.mark.parametrize(
    ("rate", "prefetch"), [(0, 0), (399, 0), (400, 8), (1_000, 16), (10_000, 256), (90_000, 2_048), (10_000_000, MOST)]
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
