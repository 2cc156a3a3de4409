"""How hot statements are executed, as auto_explain tells: by their index, whatever lies before it, and one statement a batch."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from store.desk import Desk, T

from taskrunner.domain.lanes import BEGINNING, NIL, Mark, Serves
from taskrunner.domain.task import NewTask, OnConflict
from taskrunner.store.keyed import Request, create_each
from taskrunner.store.pool import Line
from taskrunner.store.queries import sql
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, GIVEN_BACK

EXPLAIN = """load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_analyze = on;
set auto_explain.log_buffers = on; set auto_explain.log_timing = off; set auto_explain.log_format = json; set client_min_messages = log"""
MANY = 10_000


async def explained(line: Line) -> list[dict[str, Any]]:
    """The plan of every statement that runs on the line from now on."""
    plans: list[dict[str, Any]] = []

    def noted(diagnostic: Any) -> None:
        text = diagnostic.message_primary
        if "plan:" in text:
            plans.append(json.loads(text.split("plan:", 1)[1])["Plan"])

    async def watch(connection: Any) -> None:
        connection.add_notice_handler(noted)
        await connection.execute(EXPLAIN, prepare=False)

    await line.run(watch)
    return plans


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan] + [node for child in plan.get("Plans", ()) for node in nodes(child)]


def indexes(plan: dict[str, Any]) -> set[str]:
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node}


def scanned(plan: dict[str, Any]) -> set[str]:
    """Tables that were read from end to end."""
    return {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}


def walked(plan: dict[str, Any]) -> set[str]:
    """Indexes that were read from one end: they have no condition."""
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node and "Index Cond" not in node}


def met(plan: dict[str, Any]) -> float:
    """Most rows that any one node met, all its repetitions together."""
    return max(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in nodes(plan))


def again(plan: dict[str, Any]) -> float:
    """How often an aggregate was finished that could have been kept."""
    return max((node["Actual Loops"] for node in nodes(plan) if node["Node Type"] == "Aggregate"), default=0)


def buffers(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def fill(desk: Desk, task_type: str, n: int = MANY, *, days: int = -1) -> None:
    await desk.db.execute(
        "insert into tasks_live (task_type, payload, run_at)"
        " select %s, '{}', now() + %s * interval '1 day' + g * interval '1 microsecond' from generate_series(1, %s) g",
        (task_type, days, n),
    )


@pytest.fixture
async def grown(desk: Desk) -> Desk:
    """A desk whose statements were prepared while the table was small, before it grew: the worst time for a plan to be made."""
    await desk.upkeep.make_leaves()
    for _ in range(7):
        await desk.settling.settle(COMPLETED, (await desk.held()).done())
        await desk.looks.find()
        await desk.claims.peek([(T, BEGINNING)])
        await desk.sessions.take_back()
        await desk.sessions.force_cancels(grace=0)
        await desk.settling.settle(ERROR, (await desk.held()).error(None))
    for task_type in ("a-stranger", "z-stranger"):
        await fill(desk, task_type)
    return desk


async def test_a_claim_never_walks_over_tasks_that_nobody_handles(grown: Desk) -> None:
    await fill(grown, "t", 100, days=0)
    plans = await explained(grown.claims._line)
    held = await grown.claim(await grown.worker(), 50)
    assert len(held.ids) == 50
    (plan,) = plans
    assert indexes(plan) == {"tasks_live_due", "tasks_live_pkey", "sessions_pkey"}
    assert scanned(plan) == set()
    assert buffers(plan) < 50 * 30  # what 50 updates of 5 indexes cost
    plans.clear()
    assert (await grown.claim(await grown.worker(), 50, lane=T._replace(queue="empty"))).ids == []
    assert buffers(plans[0]) < 100


async def test_a_claim_does_not_walk_over_what_its_mark_says_is_done(grown: Desk) -> None:
    await fill(grown, "t", 5_000)
    (row,) = await grown.rows("select max(run_at) as at from tasks_live where task_type = 't'")
    plans = await explained(grown.claims._line)
    assert (await grown.claim(await grown.worker(), 50, mark=Mark(row["at"], NIL))).ids != []
    assert buffers(plans[0]) < 1_000  # each of the 5,000 would be a hit; the catalogue may add a few dozen


async def test_looking_reads_one_entry_a_lane(grown: Desk) -> None:
    await fill(grown, "t", 3)
    plans = await explained(grown.looks._line)
    assert len(await grown.looks.find()) == 3
    mark = Mark(await grown.now(), NIL)
    assert len(await grown.looks.sweep([(T, BEGINNING.run_at, mark)])) == 1
    assert await grown.looks.find_suspects() == []
    assert [indexes(plan) for plan in plans] == [{"tasks_live_due"}, {"tasks_live_due"}, {"tasks_live_suspect"}]
    assert all(buffers(plan) < 30 and not scanned(plan) for plan in plans)


async def test_peeking_and_suspects_read_their_index(grown: Desk) -> None:
    await fill(grown, "t", 3)
    plans = await explained(grown.claims._line)
    assert len(await grown.claims.peek([(T, BEGINNING)])) == 1
    assert await grown.claims.claim_suspects(Serves((("t", 5, 1.0),), None), [await grown.worker()]) == []
    assert indexes(plans[0]) == {"tasks_live_due"}
    assert "tasks_live_suspect" in indexes(plans[1])
    assert all(buffers(plan) < 30 and not scanned(plan) for plan in plans)


async def test_a_batch_of_outcomes_is_one_statement_by_the_primary_key(grown: Desk) -> None:
    await fill(grown, "t", 300, days=0)
    worker = await grown.worker()
    plans = await explained(grown.settling._line)
    for kind, outcome in [(COMPLETED, "done"), (ERROR, "error"), (GIVEN_BACK, "back")]:
        held = await grown.claim(worker, 100)
        settled = await grown.settling.settle(kind, getattr(held, outcome)())
        assert (len(held.ids), settled.stale_ids, settled.refused) == (100, b"", {})
        (plan,) = plans
        plans.clear()
        assert "tasks_live_pkey" in indexes(plan)
        assert scanned(plan) == walked(plan) == set()
        assert buffers(plan) < 100 * 60


@pytest.mark.parametrize("analysed", [True, False])
async def test_nothing_is_walked_over_in_a_burst_that_the_planner_does_not_expect(desk: Desk, *, analysed: bool) -> None:
    """To read all of a table without rows is as cheap as to look one of them up, says the planner; and the plan stays."""
    await desk.upkeep.make_leaves()
    if analysed:
        await fill(desk, "t")
        await desk.db.execute("delete from tasks_live")
        await desk.db.execute("vacuum analyze tasks_live")
    worker = await desk.worker()
    await desk.settling.settle(COMPLETED, (await desk.claim(worker, 1)).done())
    await fill(desk, "t", 3_000)
    plans = [await explained(room._line) for room in (desk.claims, desk.settling, desk.sessions)]
    for kind, outcome in [(COMPLETED, "done"), (ERROR, "error"), (GIVEN_BACK, "back"), (CANCELLED, "done")]:
        held = await desk.claim(worker, 100)
        await desk.settling.start(*held.blobs, worker.session.bytes)
        await desk.settling.settle(kind, getattr(held, outcome)())
    held = await desk.claim(worker, 100)
    await desk.sessions.release(worker.session, worker.stream, *held.blobs)
    await desk.hello(worker.session, await desk.claim(worker, 100), resumed=True)
    seen = [plan for told in plans for plan in told if "Relation Name" in str(plan)]
    assert len(seen) >= 12
    assert {index for plan in seen for index in walked(plan)} == set()
    assert max(map(met, seen)) <= 100  # a part that is done again for each row meets 100 times as many
    assert max(map(again, seen)) == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda desk: desk.sessions.take_back(),
        lambda desk: desk.sessions.force_cancels(grace=0),
        lambda desk: desk.sessions.release(UUID(int=1), 1, bytes(16), bytes(8)),
        lambda desk: desk.sessions.cancel_requests([UUID(int=1)]),
    ],
    ids=["take back", "force cancels", "release", "cancel requests"],
)
async def test_looking_after_the_lost_reads_only_what_is_held(grown: Desk, ask: Callable[[Desk], Any]) -> None:
    """However many tasks wait: these run each second."""
    await grown.claim(await grown.worker(), 1)
    plans = await explained(grown.sessions._line)
    await ask(grown)
    for plan in plans:
        assert "tasks_live" not in scanned(plan)
        assert "tasks_live_pkey" not in walked(plan)
        assert buffers(plan) < 50


async def test_keys_and_expiry_read_their_index(grown: Desk) -> None:
    """However many tasks wait without a key and without an end."""
    async with grown.store.pool.connection() as connection:
        plans: list[dict[str, Any]] = []

        def noted(diagnostic: Any) -> None:
            if "plan:" in diagnostic.message_primary:
                plans.append(json.loads(diagnostic.message_primary.split("plan:", 1)[1])["Plan"])

        await connection.execute("analyze tasks_live")
        connection.add_notice_handler(noted)
        await connection.execute(EXPLAIN, prepare=False)
        hows: list[OnConflict] = ["return", "return", "replace", "postpone"]
        for how in hows:
            await create_each(
                connection, [Request(NewTask(task_type="t", payload="1", unique_key="k", on_conflict=how), None)], patient=False
            )
        await connection.execute(sql("expire_tasks"), {"limit": 1_000})
        connection.remove_notice_handler(noted)
    used = {index for plan in plans for index in indexes(plan)}
    assert {"tasks_live_unique", "tasks_live_expiring"} <= used
    assert [plan for plan in plans if "tasks_live" in scanned(plan) or buffers(plan) > 300] == []
