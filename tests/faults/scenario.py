"""One row of the acceptance table: load, a fault, and then the checker."""

import asyncio
from collections.abc import AsyncIterator, Container, Coroutine
from contextlib import asynccontextmanager, suppress
from operator import itemgetter
from typing import Any, TypeVar

from faults.checker import Change, Evidence, Row, Run
from faults.cluster import LEASE, WORKERS, Cluster, silent
from faults.load import Client
from faults.waiting import now, until

FIGURES: list[str] = []
T = TypeVar("T")
DRAIN = 25.0  # seconds after the load in which the backlog must be gone


class Scenario:
    """``client`` posts, ``load`` posts in the background; what the row measures goes to ``figure``."""

    def __init__(self, name: str, cluster: Cluster, group: asyncio.TaskGroup, figures: list[str]) -> None:
        self.name = name
        self.cluster = cluster
        self.client = Client(cluster.url, name)
        self.longest_hold = 3 * (LEASE + 1)
        self._group = group
        self._figures = figures
        self._loads: list[asyncio.Task[None]] = []

    def load(self, **how: Any) -> asyncio.Task[None]:
        """POST in the background, see ``Client.run``."""
        task = self._group.create_task(self.client.run(**how))
        self._loads.append(task)
        return task

    def background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do that beside the scenario."""
        return self._group.create_task(work)

    def figure(self, what: str, seconds: float, *, bound: float, gate: float = 3.0) -> None:
        """Keep a figure and what it should be. A loaded machine may take ``gate`` times as long before the row fails."""
        self._figures.append(f"{self.name:<4} {what:<58} {seconds:8.3f} s   bound {bound:g} s")
        assert seconds <= gate * bound, f"{what}: {seconds:.3f} s, and {bound:g} s are the bound, of which {gate:g} times are allowed here"

    def note(self, what: str) -> None:
        """Keep something else worth reading."""
        self._figures.append(f"{self.name:<4} {what}")

    async def drained(self, within: float = DRAIN) -> Evidence:
        """Wait until the load is posted and nothing of it is left to do; then what there is to see."""
        for load in self._loads:
            await load
        await silent(self.cluster, self.name, within)
        return await self.evidence()

    def runs(self, tasks: Container[str] | None = None) -> list[Run]:
        """Executions so far of these tasks; of all that are acknowledged to be ours where none are named."""
        mine = self.client.sent_at if tasks is None else tasks
        found: dict[str, Run] = {}
        for entry in sorted(self.cluster.journal(), key=itemgetter("at")):
            if entry["event"] == "start":
                found[entry["run"]] = Run(task=entry["task"], attempt=entry["attempt"], holder=entry["holder"], start=entry["at"])
            else:
                found[entry["run"]].end, found[entry["run"]].how = entry["at"], entry["event"]
        return [run for run in found.values() if run.task in mine]

    async def starts_after(self, at: float, within: float) -> float:
        """Wait for the first start after that time; how long after it that was."""
        await until(lambda: any(run.start > at for run in self.runs()), within=within, what="the first start")
        return min(run.start for run in self.runs() if run.start > at) - at

    async def evidence(self) -> Evidence:
        """All that is known about the tasks of this scenario."""
        ask, mine = self.cluster.server.ask, [self.name]
        rows = await ask(
            """select id::text, (payload->>'n')::int, status, epoch, attempt, max_attempts, error, task_type from tasks
            where payload->>'scenario' = %s""",
            mine,
        )
        changes = await ask(
            """select extract(epoch from h.at)::float8, h.leaf, h.op, h.id::text, h.epoch, h.attempt, h.status, split_part(s.name, ':', 2)
            from history h left join sessions s on s.id = h.session
            where h.id in (select id from tasks where payload->>'scenario' = %s) order by h.n""",
            mine,
        )
        names = ("task", "n", "status", "epoch", "attempt", "max_attempts", "error", "task_type")
        fields = ("at", "leaf", "op", "task", "epoch", "attempt", "status", "holder")
        return Evidence(
            acknowledged=self.client.acknowledged,
            unknown=set(self.client.unknown),
            rows=[Row(**dict(zip(names, row, strict=True))) for row in rows],
            changes=[Change(**dict(zip(fields, (*row[:7], int(row[7]) if row[7] else None), strict=True))) for row in changes],
            runs=self.runs({row[0] for row in rows}),
            absences=self.cluster.absences,
            asked=self.cluster.asked,
            longest_hold=self.longest_hold,
        )


@asynccontextmanager
async def scenario(name: str, cluster: Cluster, *, but: Container[str] = ()) -> AsyncIterator[Scenario]:
    """A row on a running cluster. Afterwards its load is over, the invariants hold (``but`` those that the fault may break), and what was
    killed runs again.
    """
    figures: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            one = Scenario(name, cluster, group, figures)
            yield one
            seen = await one.drained()
        found = [sentence for sentence in seen.violations() if sentence[:2] not in but]
        assert not found, "\n".join([f"{len(found)} violations", *found[:20], cluster.logs()])
        one.note(
            f"acknowledged {len(seen.acknowledged)}, unknown {len(seen.unknown)}, refused {len(one.client.refused)}, "
            f"runs {len(seen.runs)}, run again {len(seen.rerun)}"
        )
        await cluster.start()
    except BaseException:
        with suppress(AssertionError):  # the next row shall have a whole cluster, and this one its own failure
            await cluster.start()
        raise
    finally:
        FIGURES.extend(figures)


def open_at(runs: list[Run], holder: int, at: float) -> set[str]:
    """Tasks that a process was running at that time."""
    return {run.task for run in runs if run.holder == holder and run.start <= at and (run.end is None or run.end > at)}


async def busiest(row: Scenario, tasks: list[str]) -> str:
    """A worker that runs two of these tasks at least: which one that is, the schedulers decide."""

    def find() -> str | None:
        runs, at = row.runs(tasks), now()
        return next((name for name in WORKERS if len(open_at(runs, row.cluster.pid(name), at)) >= 2), None)

    return str(await until(find, within=10, what="a worker with two long tasks"))
