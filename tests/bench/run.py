"""The benchmarks: ``python run.py [--json FILE] [--only drain,creates,…]``, and ``python run.py --peers`` for us beside the rivals.

Each figure is the median of its runs. A run in which some task did not run exactly once is void and stops everything. The machine is
part of each figure: compare ratios within one run.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import creates
import drain
import idle
import latency
import peers
from rig import Rig, median, rig

Figures = dict[str, Any]


def middle(runs: list[Figures]) -> Figures:
    """The medians of several runs, number by number."""
    return {
        key: middle([run[key] for run in runs])
        if isinstance(value, dict)
        else median([run[key] for run in runs])
        if isinstance(value, (int, float))
        else value
        for key, value in runs[0].items()
    }


async def several(times: int, measure: Callable[[], Awaitable[Figures]]) -> Figures:
    """The medians of ``times`` runs."""
    return middle([await measure() for _ in range(times)])


SECTIONS: dict[str, Callable[[Rig], Awaitable[Figures]]] = {
    "drain, 1 worker": lambda r: several(3, lambda: drain.drain(r, 200_000)),
    "drain, 2 workers": lambda r: several(3, lambda: drain.drain(r, 200_000, workers=2)),
    "drain, synchronous_commit off": lambda r: drain.drain(r, 200_000, durable=False),  # beside the others, never instead
    "creates over HTTP, 64 connections": lambda r: several(3, lambda: creates.singles(r, seconds=4)),
    "creates in arrays of 10,000": lambda r: several(3, lambda: creates.arrays(r)),
    "create to start at 20/s": lambda r: latency.creation(r, rate=20, n=200),
    "create to start at 200/s": lambda r: latency.creation(r, rate=200, n=1_000),
    "the same at 20/s, API beside scheduler": lambda r: latency.creation(r, rate=20, n=200, beside=True),
    "the same at 200/s, API beside scheduler": lambda r: latency.creation(r, rate=200, n=1_000, beside=True),
    "lateness, spread at 200/s": latency.spread,
    "lateness, 10,000 at one instant": latency.at_once,
    "idle": idle.idle,
}


async def ours(only: list[str]) -> dict[str, Figures]:
    """All sections whose name begins with one of ``only``."""
    figures: dict[str, Figures] = {}
    for name, measure in SECTIONS.items():
        if not only or any(name.startswith(word) for word in only):
            async with rig() as server:
                figures[name] = await measure(server)
            print(f"{name:<40} {_line(figures[name])}", flush=True)
    return figures


async def drained(rounds: int) -> dict[str, Figures]:
    """Us and the rivals in turn, ``rounds`` times, and the ratios of the medians."""
    rates: dict[str, list[float]] = {}
    async with rig() as server:
        ours_and_rivals: list[tuple[str, Callable[[], Awaitable[Figures]]]] = [("ours, 1 worker", lambda: drain.drain(server, 200_000))]
        for peer, workers in [(peers.graphile(), 1), (peers.graphile(), 2), (peers.pgqueuer(), 1), (peers.procrastinate(), 1)]:
            name = f"{peer.name}, {workers} worker{'s' if workers > 1 else ''}"
            ours_and_rivals.append((name, partial(peers.drain, server, peer, workers=workers)))
        for _ in range(rounds):
            for name, measure in ours_and_rivals:
                rates.setdefault(name, []).append((await measure())["rate"])
            # Each has its turn at each place: the server's autovacuum comes once a minute, which is about how long a round takes.
            ours_and_rivals.append(ours_and_rivals.pop(0))
            print({name: round(values[-1]) for name, values in rates.items()}, flush=True)
    mine = median(rates["ours, 1 worker"])
    return {name: {"rate": median(values), "ours_over_it": mine / median(values), "runs": values} for name, values in rates.items()}


async def beside(rounds: int) -> dict[str, Figures]:
    """Draining, and the time until the start, each with the rivals in turn."""
    rates = await drained(rounds)
    for name, row in rates.items():
        print(f"{name:<36} {row['rate']:>10,.0f}/s   ours is {row['ours_over_it']:.2f} times that", flush=True)
    times = await started(3)
    for name, row in times.items():
        print(f"{name:<36} p50 {row['p50_ms']:>5.1f} ms   p99 {row['p99_ms']:>5.1f} ms")
    return {"drain": rates, "create to start": times}


async def started(rounds: int) -> dict[str, Figures]:
    """Milliseconds from a create to the start of its handler, us and the rivals in turn: medians of each one's p50 and p99."""
    runs: dict[str, list[Figures]] = {}
    for rate, n in ((20, 100), (200, 600)):
        for _ in range(rounds):
            async with rig() as server:
                measures: dict[str, Callable[[], Awaitable[Figures]]] = {
                    "ours, roles apart": partial(latency.creation, server, rate=rate, n=n),
                    "ours, API beside scheduler": partial(latency.creation, server, rate=rate, n=n, beside=True),
                    "graphile-worker": partial(peers.latency, server, peers.graphile(), rate=rate, n=n),
                    "pgqueuer": partial(peers.latency, server, peers.pgqueuer(), rate=rate, n=n),
                }
                for name, measure in measures.items():
                    runs.setdefault(f"{name}, {rate}/s", []).append(await measure())
    return {
        name: {"p50_ms": median([run["p50"] for run in found]), "p99_ms": median([run["p99"] for run in found])}
        for name, found in runs.items()
    }


def _line(figures: Figures) -> str:
    """One section, readable."""

    def show(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} {show(v)}" for k, v in value.items()) + "}"
        return (
            f"{value:,.0f}"
            if isinstance(value, float) and abs(value) >= 100
            else f"{value:.3g}"
            if isinstance(value, float)
            else str(value)
        )

    return "  ".join(f"{name} {show(value)}" for name, value in figures.items())


def main() -> None:
    """Measure, print, and keep the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path(".cache/bench/figures.json"), help="where the figures go")
    parser.add_argument("--only", default="", help="names of sections, or how they begin, separated by commas")
    parser.add_argument("--peers", action="store_true", help="drain beside the rivals instead")
    parser.add_argument("--rounds", type=int, default=5, help="rounds beside the rivals")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"the machine is not idle (load {load:.1f}): the figures will be worse than they need be", file=sys.stderr)
    only = [word.strip() for word in options.only.split(",") if word.strip()]
    figures = asyncio.run(beside(options.rounds) if options.peers else ours(only))
    python = f"{platform.python_version()} of {sys.base_prefix}"
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "python": python, "load_before": load}
    document = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **machine, "figures": figures}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
