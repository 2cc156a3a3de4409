"""F40: a cluster under load and a nemesis for some minutes, and then the checker. ``python -m faults.soak --minutes 10 [--seed WORD]``.

One of each role is an elder: it suffers every fault but death until the finale, and shows whether memory, descriptors or connections grow.
The last tenth is the finale, in which everything may die.
"""

import argparse
import asyncio
import json
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from faults.checker import Absence, Evidence, Run, born_claimed, longest_holds
from faults.cluster import API, API2, SCHEDULERS, WORKERS, Cluster, cluster, free_ports
from faults.load import Client, connections
from faults.nemesis import Nemesis
from faults.scenario import Scenario
from faults.waiting import now

ELDERS = (SCHEDULERS[0], API, WORKERS[0])
STRANDS = 3
LOOK = 5.0  # seconds between two samples
BACKLOG = 240.0  # seconds in which all must be done after the last fault
PATIENCE = 60.0  # seconds for which a client sends a task again
LONGEST_HOLD = 60.0
POOL = 12  # connections of one process
MOST_CONNECTIONS = POOL * 4


@dataclass
class Gauge:
    """What the elders and the hot table need, over time."""

    cluster: Cluster
    samples: list[dict[str, Any]] = field(default_factory=list)

    async def run(self) -> None:
        """Look, for ever."""
        while True:
            with suppress(psycopg.Error, psutil.Error, OSError):
                self.samples.append(await self.look())
            await asyncio.sleep(LOOK)

    async def look(self) -> dict[str, Any]:
        """One sample."""
        asked = "select pg_total_relation_size('tasks_live'), (select count(*) from pg_stat_activity where application_name = 'taskrunner')"
        ((size, connected),) = await self.cluster.server.ask(asked)
        elders = {name: psutil.Process(self.cluster.pid(name)) for name in ELDERS}
        return {
            "at": time.monotonic(),
            "table": size,
            "connections": connected,
            "rss": {name: one.memory_info().rss for name, one in elders.items()},
            "fds": {name: one.num_fds() for name, one in elders.items()},
        }

    def slopes(self, since: float) -> dict[str, float]:
        """Bytes a second by which each elder grew: the line through the samples that are younger than ``since`` (monotonic)."""
        mine = [sample for sample in self.samples if sample["at"] >= since]
        return {name: _slope([(sample["at"], sample["rss"][name]) for sample in mine]) for name in ELDERS}


def _slope(points: list[tuple[float, float]]) -> float:
    if len(points) < 2:
        return 0.0
    x, y = (sum(column) / len(points) for column in zip(*points, strict=True))
    slope: float = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return slope


async def load(client: Client, dice: random.Random, rate: float, until: float) -> None:
    """So many tasks a second, most of them short, some of them nasty. Half of them are sent until they are acknowledged; the others once
    and without a key, so that they may be born claimed.
    """
    loop = asyncio.get_running_loop()
    async with connections() as session, asyncio.TaskGroup() as group:
        while loop.time() < until:
            task_type, payload = _draw(dice)
            once = dice.random() < 0.5
            send = client.post(session, task_type, **payload) if once else client.insist(session, task_type, patience=PATIENCE, **payload)
            group.create_task(send)
            await asyncio.sleep(dice.expovariate(rate))


def _draw(dice: random.Random) -> tuple[str, dict[str, Any]]:
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "short": ("work", {"seconds": dice.uniform(0, 0.3)}),
        "later": ("work", {"seconds": 0.05, "delay": dice.uniform(0, 20)}),
        "medium": ("work", {"seconds": dice.uniform(0.3, 1.5)}),
        "long": ("work", {"seconds": dice.uniform(1, 6)}),
        "flaky": ("flaky", {"seconds": 0.02, "good": dice.randint(2, 3)}),
        "blocking": ("blocking", {"seconds": dice.uniform(0.05, 1)}),
        "poison": ("poison", {"queue": "mortals"}),
        "stubborn": ("stubborn", {}),
    }
    weights = {"short": 500, "later": 100, "medium": 200, "long": 40, "flaky": 100, "blocking": 10, "poison": 0.6, "stubborn": 2}
    return kinds[dice.choices([*weights], [*weights.values()])[0]]


async def soak(folder: Path, *, minutes: float, seed: str, rate: float) -> dict[str, Any]:
    """One round. What there is to tell; ``bad`` is empty when all holds."""
    (door,) = free_ports(1)
    settings = {
        WORKERS[0]: {"TASKRUNNER_QUEUES": "default"},  # poison is not for an elder
        SCHEDULERS[1]: {"TASKRUNNER_ROLES": "api,scheduler", "HTTP_PORT": str(door)},  # what is created here may be born claimed
    }
    async with cluster(folder, None, proxied=True, apis=(API, API2), settings=settings) as town, asyncio.TaskGroup() as group:
        nemesis = Nemesis(town, seed, {*town.names} - {*ELDERS})
        keeping = group.create_task(town.revive(town.names, but=nemesis.down))
        row = Scenario("F40", town, group, [])
        row.longest_hold = LONGEST_HOLD
        row.client = Client(town.url, "F40", others=[f"http://127.0.0.1:{port}" for port in (town.ports[API2], door)])
        gauge = Gauge(town)
        began = time.monotonic()
        loading = group.create_task(load(row.client, random.Random(seed), rate, asyncio.get_running_loop().time() + minutes * 60))
        await asyncio.sleep(min(30, minutes * 6))
        warm = await gauge.look()
        background = [group.create_task(gauge.run()), *(group.create_task(nemesis.torment(n)) for n in range(STRANDS))]
        await asyncio.sleep(began + minutes * 54 - time.monotonic())
        await nemesis.rest()
        await asyncio.sleep(10)  # under load and without faults, as in the beginning
        calm = await gauge.look()
        background[0].cancel()
        nemesis.mortal, nemesis.resting = {*town.names}, False
        await loading
        await nemesis.rest()
        for task in background:
            task.cancel()
        quiet = now()
        await town.start()
        stuck = ""
        try:
            await row.drained(BACKLOG)
        except AssertionError as error:  # what it was is to be seen below
            stuck = str(error)
        seen = await row.evidence()
        unanswered = await _unanswered(town)
        seen.absences += unanswered
        drained = now() - quiet
        keeping.cancel()
    (folder / "story.json").write_text(json.dumps(nemesis.story))
    tale = _tale(seen, row.client, gauge, warm, calm)
    tale["bad"] += [stuck] if stuck else []
    _write_down(folder, seen, seen.second_runs().get("unexplained", []))
    return {
        "seed": seed,
        "minutes": minutes,
        **tale,
        "sessions_unanswered": len(unanswered),
        "backlog_gone_after": round(drained, 1),
        "faults": sum(nemesis.done.values()),
        "by_row": dict(sorted(nemesis.done.items())),
    }


async def _unanswered(town: Cluster) -> list[Absence]:
    """Sessions that ended before their lease, as they may: both connections were broken, and no scheduler answered for half a second."""
    rows = await town.server.ask(
        """select split_part(name, ':', 2)::int, extract(epoch from greatest(stream_lost_at, beat_lost_at))::float8,
          extract(epoch from dead_at)::float8
        from sessions where lease_until > dead_at and stream_lost_at is not null and beat_lost_at is not null"""
    )
    return [Absence(*row) for row in rows]


def _tale(seen: Evidence, client: Client, gauge: Gauge, warm: dict[str, Any], calm: dict[str, Any]) -> dict[str, Any]:
    again = {why: len(runs) for why, runs in sorted(seen.second_runs().items())}
    slopes = gauge.slopes(warm["at"] + 60)
    tables = [sample["table"] for sample in gauge.samples]
    bad = [
        *seen.violations(),
        *(f"unexplained second run of {run.task} in {run.holder}" for run in seen.second_runs().get("unexplained", [])),
    ]
    bad += [
        f"I8: {name} has {calm['fds'][name]} descriptors, and had {warm['fds'][name]}"
        for name in ELDERS
        if calm["fds"][name] > warm["fds"][name] + POOL + 8
    ]
    if calm["connections"] > MOST_CONNECTIONS:
        bad.append(f"I8: {calm['connections']} connections to PostgreSQL, and {MOST_CONNECTIONS} is the most that the pools may have")
    return {
        "bad": bad,
        "acknowledged": len(seen.acknowledged),
        "unknown": len(client.unknown),
        "refused": len(client.refused),
        "sent_again": client.repeated,
        "born_claimed": sum(map(born_claimed, seen.changes)),
        "by_status": dict(Counter(row.status for row in seen.rows)),
        "innocent_and_given_up": sum(row.task_type != "poison" and (row.error or "").startswith("given up") for row in seen.rows),
        "failed": dict(Counter((row.error or "")[:60] for row in seen.rows if row.status == "FAILED")),
        "runs": len(seen.runs),
        "second_runs": again,
        "longest_hold": round(max(longest_holds(seen.changes).values(), default=0.0), 1),
        "slowest_answer": round(client.slowest, 1),
        "rss_mb": {name: [round(one["rss"][name] / 1e6, 1) for one in (warm, calm)] for name in ELDERS},
        "rss_mb_by_minute": {name: [round(one["rss"][name] / 1e6) for one in gauge.samples[:: int(60 / LOOK)]] for name in ELDERS},
        "rss_slope_mb_an_hour": {name: round(slope * 3600 / 1e6, 1) for name, slope in slopes.items()},
        "fds": {name: [one["fds"][name] for one in (warm, calm)] for name in ELDERS},
        "connections": [warm["connections"], calm["connections"]],
        "hot_table_mb": [round(one / 1e6, 1) for one in (warm["table"], max(tables, default=0), calm["table"])],
    }


def _write_down(folder: Path, seen: Evidence, runs: Iterable[Run]) -> None:
    """The whole history of what is not as it should be."""
    tasks = {run.task for run in runs} | {word for line in seen.violations() for word in line.split() if len(word) == 36}
    history = {
        task: {"changes": [asdict(c) for c in seen.changes if c.task == task], "runs": [asdict(r) for r in seen.runs_by_task.get(task, [])]}
        for task in sorted(tasks)
    }
    absences = [asdict(one) for one in seen.absences]
    (folder / "evidence.json").write_text(json.dumps({"tasks": history, "absences": absences, "asked": seen.asked}, indent=1))


def main() -> int:
    """Run one round, print it, and keep its folder when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument("--rate", type=float, default=30, help="tasks a second")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    folder.chmod(0o755)
    print(f"soak of {asked.minutes:g} minutes, seed {asked.seed}, in {folder}", flush=True)
    tale = asyncio.run(soak(folder, minutes=asked.minutes, seed=asked.seed, rate=asked.rate))
    print(json.dumps(tale, indent=1), flush=True)
    if not tale["bad"]:
        shutil.rmtree(folder)
    return 1 if tale["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
