"""Tasks in the user's own transaction."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from api.door import Api
from psycopg.rows import dict_row, namedtuple_row

from taskrunner import Client, enqueue, enqueue_sync
from taskrunner.client import Unsendable

NAN = float("nan")
DUE = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


async def test_it_is_there_when_the_transaction_is_committed(api: Api, client: Client) -> None:
    async with await psycopg.AsyncConnection.connect(api.dsn) as connection:
        task = await enqueue(
            connection, "bill", {"n": 1}, queue="q", priority=1, run_at=DUE, tags=["a", 'b"'], timeout=timedelta(minutes=1)
        )
        assert [found async for found in client.list()] == []
    found = await client.get(task)
    assert (found.task_type, found.payload, found.queue, found.priority, found.run_at) == ("bill", {"n": 1}, "q", 1, DUE)
    assert (found.tags, found.timeout, found.status) == (("a", 'b"'), 60.0, "PENDING")


async def test_it_is_not_there_when_the_transaction_is_rolled_back(api: Api, client: Client) -> None:
    async with await psycopg.AsyncConnection.connect(api.dsn) as connection:
        await enqueue(connection, "x")
        await connection.rollback()
    assert [found async for found in client.list()] == []


@pytest.mark.parametrize("factory", [None, dict_row, namedtuple_row])
async def test_without_asyncio_and_with_any_rows(api: Api, client: Client, factory: Any) -> None:
    settings = {} if factory is None else {"row_factory": factory}
    with psycopg.connect(api.dsn, autocommit=True, **settings) as connection:
        task = enqueue_sync(
            connection, "x", [1, "ÄÖ"], delay=60, metadata={"a": 1}, backoff={"kind": "constant", "base": 2}, unique_key="k"
        )
        assert enqueue_sync(connection, "x", unique_key="k", on_conflict="return") == task
    found = await client.get(task)
    assert found.payload == [1, "ÄÖ"]
    assert timedelta(seconds=59) < found.run_at - found.created_at < timedelta(seconds=61)


def test_what_is_no_field_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn) as connection, pytest.raises(TypeError, match="'runat' is not a field of a task; there are queue, priority"):
        enqueue_sync(connection, "x", runat=DUE)  # type: ignore[call-arg]  # that is the point


@pytest.mark.parametrize("fields", [{"payload": [NAN]}, {"metadata": {"a": NAN}}, {"delay": float("inf")}, {"timeout": NAN}], ids=repr)
def test_what_cannot_be_sent_is_refused(fields: dict[str, Any], dsn: str) -> None:
    with psycopg.connect(dsn) as connection, pytest.raises(Unsendable, match="NaN and Infinity"):
        enqueue_sync(connection, "x", **fields)
