"""What a task may cost the database, in counts that no noisy machine changes: WAL and buffers.

A change that goes past one of these makes every figure of the README worse. The bounds are what was measured, and a fifth more.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from store.desk import Desk, Held, pairs

from taskrunner.domain.lanes import BEGINNING, Mark
from taskrunner.domain.task import NewTask
from taskrunner.store.direct import DirectCreates, Place
from taskrunner.store.settling import COMPLETED

BATCH, BATCHES = 500, 6
PAYLOAD = json.dumps({"i": 1, "t": 0, "p": "x" * 55})


@dataclass
class Spent:
    """By one batch of tasks."""

    wal_bytes: float = 0
    buffers: float = 0


@asynccontextmanager
async def measured(desk: Desk) -> AsyncIterator[Spent]:
    """What the statements inside cost the server. Others on it add to that: take the least of several."""
    before, spent = await _now(desk), Spent()
    yield spent
    after = await _now(desk)
    spent.wal_bytes = after["wal"] - before["wal"]
    spent.buffers = after["buffers"] - before["buffers"]


async def _now(desk: Desk) -> dict[str, float]:
    for line in (desk.claims, desk.settling):
        await line._line.run(_flush)
    async with desk.store.pool.connection() as connection:
        await _flush(connection)
    await desk.db.execute("select pg_stat_force_next_flush()")
    (row,) = await desk.rows(
        "select (blks_hit + blks_read)::float8 as buffers,"
        " (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 as wal from pg_stat_database where datname = current_database()"
    )
    return {name: float(value) for name, value in row.items()}


async def _flush(connection: object) -> None:
    await connection.execute("select pg_stat_force_next_flush()")  # type: ignore[attr-defined]  # a psycopg connection


async def test_creating_claiming_and_settling_stay_within_their_budget(desk: Desk) -> None:
    """In bytes of WAL and in buffers a task."""
    await desk.upkeep.make_leaves()
    seat = (await desk.worker())._replace(free=BATCH)
    mark: Mark = BEGINNING
    created, claimed, settled = [], [], []
    for _ in range(BATCHES):
        async with measured(desk) as create:
            await desk.create(BATCH, payload=PAYLOAD)
        async with measured(desk) as claim:
            batch, took = await desk.take([seat], mark=mark)
        ((_, last),) = took.items()
        mark = last.mark
        held: Held = pairs(seat, batch)
        assert len(held.ids) == BATCH
        async with measured(desk) as settle:
            assert not (await desk.settling.settle(COMPLETED, held.done())).stale_ids
        created.append(create)
        claimed.append(claim)
        settled.append(settle)
    least = {
        name: {field: min(getattr(one, field) for one in spents) / BATCH for field in ("wal_bytes", "buffers")}
        for name, spents in (("create", created), ("claim", claimed), ("settle", settled))
    }
    assert least["create"]["wal_bytes"] < 560, least  # 449
    assert least["claim"]["wal_bytes"] < 690, least  # 564
    assert least["settle"]["wal_bytes"] < 540, least  # 434
    assert least["claim"]["buffers"] < 14, least  # 10.9
    assert least["settle"]["buffers"] < 12.5, least  # 9.8


async def test_what_is_born_claimed_costs_less_than_a_create_and_a_claim(desk: Desk) -> None:
    """In bytes of WAL a task."""
    seat = await desk.worker()
    direct = DirectCreates(desk.store.pool, desk.store.meter)
    tasks, places = [NewTask(task_type="t", payload=PAYLOAD)] * BATCH, [Place(seat.session, seat.stream, 5, 300.0)] * BATCH
    spents = []
    for _ in range(BATCHES):
        async with measured(desk) as spent:
            inserted = await direct.insert(tasks, places)
        assert not inserted.waiting
        spents.append(spent)
    least = {field: min(getattr(one, field) for one in spents) / BATCH for field in ("wal_bytes", "buffers")}
    assert least["wal_bytes"] < 800, least  # 460, and more while others write beside it; a create and a claim have 1,013


async def test_copying_many_costs_less_than_inserting_them(desk: Desk) -> None:
    """In bytes of WAL a task."""
    tasks = [NewTask(task_type="t", payload=PAYLOAD)] * BATCH
    inserted, copied = [], []
    for _ in range(BATCHES):
        async with measured(desk) as insert:
            await desk.store.create(tasks)
        async with measured(desk) as copy:
            await desk.store.create_parts(iter([tasks[:250], tasks[250:]]))
        inserted.append(insert)
        copied.append(copy)
    least = {name: min(one.wal_bytes for one in spents) / BATCH for name, spents in (("insert", inserted), ("copy", copied))}
    assert least["copy"] < least["insert"], least  # 405, 450
    assert least["copy"] < 490, least
