"""The clients against the API that they are for."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from api.door import Api, opened
from faults.proxy import DOWN, proxy
from pydantic import BaseModel

from taskrunner import Client, SyncClient
from taskrunner.client import ApiError, NotFound, Refused, Unreachable

NOBODY = "01890a5d-ac96-774b-bcce-b302099a8057"


class Invoice(BaseModel):
    number: int


async def test_create_says_what_is_stored(client: Client) -> None:
    due = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    task = await client.create(
        "bill", Invoice(number=7), queue="q", priority=1, run_at=due, max_attempts=3, timeout=timedelta(minutes=2), tags=["a", "b"]
    )
    assert (task.task_type, task.payload, task.queue, task.priority, task.run_at) == ("bill", {"number": 7}, "q", 1, due)
    assert (task.max_attempts, task.timeout, task.tags, task.status, task.finished) == (3, 120.0, ("a", "b"), "PENDING", False)
    assert await client.get(task.id) == task


async def test_no_payload_is_an_empty_object_and_a_delay_is_a_duration(client: Client) -> None:
    task = await client.create("x", delay=timedelta(hours=1))
    assert task.payload == {}
    assert timedelta(minutes=59) < task.run_at - task.created_at <= timedelta(hours=1, seconds=1)


async def test_a_batch_keeps_its_order(client: Client) -> None:
    made = await client.create_batch([{"task_type": "x", "payload": n} for n in range(5)])
    assert [(await client.get(one.id)).payload for one in made] == [0, 1, 2, 3, 4]
    assert {one.status for one in made} == {"PENDING"}


async def test_list_goes_over_pages_newest_first(client: Client) -> None:
    made = await client.create_batch([{"task_type": "x", "queue": "q", "tags": ["t"]} for _ in range(7)])
    await client.create("other")
    asked = client.list(
        page=3, task_type="x", queue="q", tag="t", status=["PENDING", "FAILED"], created_after=datetime(2020, 1, 1, tzinfo=UTC)
    )
    assert [task.id async for task in asked] == sorted((one.id for one in made), reverse=True)


async def test_cancel_retry_and_run_now(client: Client) -> None:
    task = await client.create("x", delay=3600)
    assert (await client.run_now(task.id)).run_at < task.run_at
    assert (await client.cancel(task.id)).status == "CANCELLED"
    assert (await client.retry(task.id)).status == "PENDING"


async def test_wait_returns_when_the_task_is_finished(api: Api, client: Client) -> None:
    task = await client.create("x")
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(client.wait(task.id, 20))
        await api.finish(task.id, result='{"n": 1}')
    assert (waiting.result().result, waiting.result().succeeded) == ({"n": 1}, True)


async def test_wait_gives_up_after_its_time(client: Client) -> None:
    task = await client.create("x")
    with pytest.raises(TimeoutError, match=f"task {task.id} is PENDING after 0.1 seconds"):
        await client.wait(task.id, 0.1)


async def test_wait_refuses_a_time_that_never_comes(client: Client) -> None:
    task = await client.create("x")
    async with asyncio.timeout(5):
        with pytest.raises(ValueError, match="timeout must be a number of seconds, not NaN"):
            await client.wait(task.id, float("nan"))


async def test_problems_are_exceptions_with_all_that_was_said(client: Client) -> None:
    with pytest.raises(NotFound) as missing:
        await client.get(NOBODY)
    assert (missing.value.status, missing.value.code) == (404, "not_found")
    with pytest.raises(Refused) as refused:
        await client.create("x", priority=9)
    assert (refused.value.status, refused.value.errors[0]["pointer"]) == (422, "/priority")
    assert "priority must be" in str(refused.value)
    task = await client.create("x")
    with pytest.raises(Refused) as conflict:
        await client.retry(task.id)
    assert conflict.value.status == 409


async def test_an_id_is_one_part_of_the_path(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        await client.cancel("../tasks/x")
    assert refused.value.status in {400, 404}


async def test_nobody_there_is_unreachable(unused_tcp_port: int) -> None:
    async with Client(f"http://127.0.0.1:{unused_tcp_port}", retries=0) as client:
        with pytest.raises(Unreachable, match=f"no answer from http://127.0.0.1:{unused_tcp_port}: .*TASKRUNNER_API_URL"):
            await client.create("x")


async def test_another_server_is_not_the_service() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server, Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(Unreachable, match="something else than JSON: is TASKRUNNER_API_URL right?"):
            await client.get(NOBODY)


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="TASKRUNNER_API_URL"):
        Client("localhost:8080")


async def test_a_create_whose_answer_is_lost_is_sent_again(api: Api) -> None:
    async with proxy(api.http._base_url.port or 0) as way, Client(f"http://127.0.0.1:{way.port}") as client:
        way.stall(DOWN)
        async with asyncio.TaskGroup() as group:
            creating = group.create_task(client.create("x", {"n": 1}))
            while not await api.sql("select 1 from tasks where task_type = 'x'"):
                await asyncio.sleep(0.01)
            way.flow()
            way.reset()
        task = creating.result()
    assert await api.sql("select id::text from tasks where task_type = 'x'") == [(task.id,)]


async def test_a_batch_whose_answer_is_lost_again_and_again_is_there_once(api: Api) -> None:
    async with proxy(api.http._base_url.port or 0) as way, Client(f"http://127.0.0.1:{way.port}", retries=2) as client:
        way.cut_after = 10
        with pytest.raises(Unreachable):
            await client.create_batch([{"task_type": "x"}])
    assert await api.sql("select count(*) from tasks") == [(1,)]


async def test_a_503_is_tried_again(dsn: str, empty_dsn: str) -> None:
    async with opened(empty_dsn) as closed, Client(str(closed.http._base_url), retries=1) as client:
        with pytest.raises(ApiError) as unavailable:
            await client.create("x")
        assert (unavailable.value.status, unavailable.value.retry_after) == (503, 1.0)


async def test_the_token_goes_along(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    monkeypatch.setenv("TASKRUNNER_API_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    monkeypatch.setenv("TASKRUNNER_API_TOKEN", "trk_secret")
    async with server, Client(retries=0) as client:
        with pytest.raises(Unreachable):
            await client.create("x", idempotency_key="mine")
    assert b"POST /api/tasks HTTP/1.1" in seen[0]
    assert b"Authorization: Bearer trk_secret\r\n" in seen[0]
    assert b'Idempotency-Key: "mine"\r\n' in seen[0]


async def test_the_same_without_asyncio(api: Api) -> None:
    def talk() -> None:
        with SyncClient(str(api.http._base_url)) as client:
            task = client.create("x", {"n": 1}, delay=60)
            made = client.create_batch([{"task_type": "y"}, {"task_type": "y"}])
            newest, oldest = sorted((one.id for one in made), reverse=True)
            assert [one.id for one in client.list(page=1, task_type="y")] == [newest, oldest]
            assert client.get(task.id).payload == {"n": 1}
            assert client.cancel(task.id).status == "CANCELLED"
            assert client.wait(task.id, 1).status == "CANCELLED"
            assert client.retry(task.id).status == "PENDING"
            assert client.run_now(task.id).status == "PENDING"
            with pytest.raises(NotFound):
                client.get(NOBODY)
            for first in client.list(task_type="y"):
                assert first.id == newest
                break

    await asyncio.to_thread(talk)


def test_a_handler_module_does_not_load_the_client() -> None:
    code = (
        "import sys; from taskrunner import task; assert not {'aiohttp', 'psycopg'} & sys.modules.keys();"
        "from taskrunner import Client; print(Client.__name__)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "Client\n"


def test_the_package_has_nothing_else() -> None:
    import taskrunner

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = taskrunner.Nothing  # type: ignore[attr-defined]  # that is the point
