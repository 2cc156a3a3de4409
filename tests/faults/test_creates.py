"""Clients that send a task again, and hints that cannot be sent."""

import asyncio
from uuid import uuid4

import pytest
from faults.cluster import API, API2, SCHEDULERS, Cluster
from faults.load import Client, connections
from faults.proxy import proxy
from faults.scenario import scenario
from faults.waiting import now

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
APIS = (API, API2)
TRIES = 8


async def test_f09_the_api_dies_before_it_answers(town: Cluster) -> None:
    async with scenario("F09", town) as row, proxy(town.ports[API]) as front, connections() as session:
        front.cut_after = 0  # whatever is asked here, the answer never comes
        deaf, other = (f"http://127.0.0.1:{port}" for port in (front.port, town.ports[API2]))
        row.client = Client(deaf, "F09", others=[deaf, deaf, other])
        reviving = asyncio.ensure_future(town.revive(town.names))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(TRIES):
                    for _ in range(30):
                        group.create_task(row.client.insist(session, patience=40))
                    await asyncio.sleep(0.3)  # some are being committed
                    town.kill(API)
        finally:
            reviving.cancel()
        seen = await row.drained()
        requests = len(seen.rows) + row.client.repeated
        row.note(f"{TRIES} kills of the API, no answer from it ever: {requests} requests made {len(seen.rows)} tasks")
        assert row.client.repeated > 2 * len(seen.rows)
        assert len(seen.acknowledged) == len(seen.rows) == TRIES * 30, "each request makes one task, however often it is sent"
        assert row.client.unknown == {}


async def test_f10_one_key_many_times_at_once_at_two_doors(town: Cluster) -> None:
    doors = [f"http://127.0.0.1:{town.ports[name]}/api/tasks" for name in APIS]
    async with scenario("F10", town) as row, connections() as session:
        headers = {"Idempotency-Key": uuid4().hex}

        async def post(n: int, **payload: int) -> tuple[int, str]:
            body = row.client.body(0, "work", **payload)
            while True:
                async with session.post(doors[n % 2], json=body, headers=headers) as answer:
                    said = await answer.json(content_type=None)
                    if answer.status != 409:  # in flight
                        return answer.status, str(said.get("id"))
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            posts = [group.create_task(post(n)) for n in range(50)]
        ((status, task),) = {post.result() for post in posts}
        assert status == 201
        row.client.acknowledged[0], row.client.sent_at[task] = task, now()
        assert (await post(0, seconds=1))[0] == 422, "the key with another body"
        seen = await row.drained()
        assert [one.task for one in seen.rows] == [task]


async def test_f17_hints_cannot_be_sent(town: Cluster) -> None:
    ask = town.server.ask
    async with scenario("F17", town) as row:
        pids = {name: town.pid(name) for name in (*APIS, *SCHEDULERS)}
        await ask("revoke execute on function pg_notify(text, text) from public")
        try:
            await row.load(rate=40, seconds=4)
            seen = await row.drained()
        finally:
            await ask("grant execute on function pg_notify(text, text) to public")
        assert row.client.refused == {}
        assert row.client.unknown == {}
        assert {name: town.pid(name) for name in pids if town.processes[name].alive} == pids, "a process died of it"
        waits = sorted(runs[0].start - row.client.sent_at[task] for task, runs in seen.runs_by_task.items())
        row.figure("no NOTIFY at all: 99 % start after their POST within", waits[int(len(waits) * 0.99)], bound=1.2)
