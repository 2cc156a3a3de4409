"""What the clients stream: events from the service, lines to it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from api.door import Api
from faults.proxy import proxy

from taskrunner import Client, SyncClient
from taskrunner.client import Refused


async def lines(n: int, bad: int | None = None) -> AsyncIterator[bytes]:
    for at in range(n):
        yield b'{"task_type": "x", "priority": 9}\n' if at == bad else b'{"task_type": "x", "payload": %d}\n' % at


async def test_lines_become_tasks_in_order(client: Client) -> None:
    made = [one async for one in client.import_lines(lines(5_000))]
    assert len({one.id for one in made}) == 5_000
    assert (await client.get(made[4_321].id)).payload == 4_321


async def test_a_bad_line_is_named_and_nothing_is_done(client: Client) -> None:
    with pytest.raises(Refused, match="line 4001: priority must be") as refused:
        _ = [one async for one in client.import_lines(lines(200_000, bad=4_000))]
    assert refused.value.errors[0]["line"] == 4_001
    assert [task async for task in client.list()] == []


async def test_lines_without_asyncio(api: Api) -> None:
    def talk() -> list[str]:
        with SyncClient(str(api.http._base_url)) as client:
            return [one.status for one in client.import_lines([b'{"task_type": "x"}\n{"task_', b'type": "x"}'])]

    assert await asyncio.to_thread(talk) == ["PENDING", "PENDING"]


async def test_events_go_on_after_a_break(api: Api) -> None:
    async with proxy(api.http._base_url.port or 0) as way, Client(f"http://127.0.0.1:{way.port}") as client:
        made = await client.create_batch([{"task_type": "x"} for _ in range(3)])
        stream = client.events(status=["COMPLETED"], task_type="x")
        async with asyncio.TaskGroup() as group:
            first = group.create_task(anext(stream))
            while not first.done():
                await api.finish(made[0].id) if not await api.sql("select 1 from tasks_finished") else None
                await asyncio.sleep(0.05)
        assert (first.result().event, first.result().data["id"]) == ("finished", made[0].id)
        assert first.result().id
        way.reset()
        for one in made[1:]:
            await api.finish(one.id)
        seen: set[str] = set()
        while not seen >= {one.id for one in made[1:]}:
            seen.add((await anext(stream)).data["id"])
        await stream.aclose()
