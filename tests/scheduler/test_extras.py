"""What a scheduler does beyond claims and settles: late commits, expiry, backoffs and progress on the wire, callbacks."""

import struct
import time
from typing import Any
from uuid import UUID

import psycopg
import pytest
from grpclib import GRPCError
from scheduler.workman import House, until

from taskrunner.domain.retry import Backoff
from taskrunner.domain.task import NewTask, Task
from taskrunner.wire.columns import ID, split
from taskrunner.wire.pb.taskrunner.v1 import Outcome, Progress, WorkerMessage


async def create(house: House, **fields: Any) -> UUID:
    return (await house.store.create([NewTask(**{"task_type": "t", "payload": "1", **fields})]))[0].id


async def look(house: House, id_: UUID) -> Task:
    task = await house.store.get(id_)
    assert task is not None
    return task


async def test_a_late_commit_starts_within_a_second(house: House) -> None:
    """The task is older than others that were claimed meanwhile: it lies before the watermark."""
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, slots=50)
    async with await psycopg.AsyncConnection.connect(house.dsn) as late:
        row = await (await late.execute("select taskrunner_enqueue('t')")).fetchone()
        assert row is not None
        for _ in range(5):
            await create(house)
            await man.take()
        await late.commit()
        committed = time.monotonic()
    assert split((await man.take()).ids, ID) == [row[0].bytes]
    assert time.monotonic() - committed < 1.5


async def test_what_does_not_start_in_time_fails_within_a_second_or_two(house: House) -> None:
    await house.scheduler(lease=30)
    (row,) = await rows(house, "select taskrunner_enqueue('t', expires_at => clock_timestamp() + interval '0.3 seconds')")
    await until(lambda: is_failed(house, row[0]))
    assert (await look(house, row[0])).error == "expired before it started"


async def rows(house: House, query: str) -> list[tuple[Any, ...]]:
    async with house.store.pool.connection() as connection:
        return await (await connection.execute(query.encode())).fetchall()


async def is_failed(house: House, id_: UUID) -> bool:
    return (await look(house, id_)).status == "FAILED"


async def test_backoffs_reach_the_worker_where_there_are_any(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    await create(house)
    assert (await man.take()).backoffs == []
    await create(house, backoff=Backoff(kind="constant", base=7.0))
    assert (await man.take()).backoffs == [b'{"base":7.0,"kind":"constant"}']


async def test_progress_is_written_down_and_settles_nothing(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    id_ = await create(house)
    await man.take()
    columns = {"ids": id_.bytes, "epochs": man.held[id_.bytes], "fractions": struct.pack(">f", 0.5)}
    await man.work.send_message(WorkerMessage(progress=Progress(**columns, messages=["half\0way"])))

    async def told() -> bool:
        task = await look(house, id_)
        return (task.progress, task.progress_message) == (0.5, "half\N{REPLACEMENT CHARACTER}way")

    await until(told)
    await man.report(Outcome.COMPLETED)
    assert (await look(house, id_)).progress == 0.5


async def test_torn_progress_is_refused(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address)
    await man.work.send_message(WorkerMessage(progress=Progress(ids=bytes(16), epochs=bytes(8), messages=["a", "b"])))
    with pytest.raises(GRPCError, match="different lengths"):
        while True:
            await man.hear()


async def test_a_callback_is_a_task_that_starts_at_once(house: House) -> None:
    address, _ = await house.scheduler(lease=30)
    man = await house.workman(address, types=("t", "webhook"))
    await create(house, callback_url="https://example.com/hook", queue="q")
    await man.take()
    await man.report(Outcome.COMPLETED)
    began = time.monotonic()
    tasks = await man.take()
    assert (tasks.task_type, tasks.queue) == ("webhook", "q")
    assert time.monotonic() - began < 0.5
