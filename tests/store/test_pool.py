"""A loop's own connection: opened when it is needed, opened anew when it broke, and never in the way of stopping."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from store.desk import Desk
from structlog.testing import capture_logs

from taskrunner.domain.errors import ConfigurationError, OutcomeUnknown, Unavailable
from taskrunner.store.pool import FRESH, Connection, Line, open_pool, translated


async def pid(connection: Connection) -> int:
    row = await (await connection.execute("select pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


async def terminate(desk: Desk, number: int) -> None:
    await desk.db.execute("select pg_terminate_backend(%s, 5000)", (number,))


async def test_a_line_keeps_its_connection_and_opens_another_when_it_broke(desk: Desk) -> None:
    line = Line(desk.store.pool, setup="set enable_seqscan = off")
    first = await line.run(pid)
    assert await line.run(pid) == first
    await terminate(desk, first)
    with pytest.raises(Unavailable):
        await line.run(pid)
    second = await line.run(pid)
    assert second != first
    assert (await line.run(lambda c: setting(c, "enable_seqscan"))) == "off"
    await line.close()


async def setting(connection: Connection, name: str) -> Any:
    row = await (await connection.execute(f"show {name}".encode())).fetchone()
    return row and row[0]


async def test_a_write_whose_connection_broke_has_an_unknown_outcome(desk: Desk) -> None:
    line = Line(desk.store.pool)
    await terminate(desk, await line.run(pid))
    with pytest.raises(OutcomeUnknown):
        await line.run(pid, writes=True)
    await line.close()


@pytest.mark.parametrize(
    "error",
    [
        errors.InFailedSqlTransaction,
        errors.IdleInTransactionSessionTimeout,
        errors.TransactionTimeout,
        errors.DependentObjectsStillExist,
        errors.FeatureNotSupported,
    ],
)
def test_a_transaction_that_was_given_up_and_what_somebody_did_to_our_tables_end_no_loop(error: type[psycopg.Error]) -> None:
    """Nothing is written then, so it is no unknown outcome either."""
    with pytest.raises(Unavailable, match="for this reason"), translated(writes=True):
        raise error("for this reason\nand more")


async def test_a_transaction_that_the_database_ended_while_we_slept_is_unavailable(desk: Desk) -> None:
    async def sleep(connection: Connection) -> None:
        await connection.execute("set idle_in_transaction_session_timeout = '300ms'")
        async with connection.transaction():
            number = await pid(connection)
            while await desk.rows("select from pg_stat_activity where pid = %s", number):
                await asyncio.sleep(0.01)

    line = Line(desk.store.pool)
    with pytest.raises(Unavailable, match="gave the transaction up"):
        await line.run(sleep, writes=True)
    assert await line.run(pid)
    await line.close()


async def test_a_connection_whose_transaction_failed_and_was_left_open_is_given_up(desk: Desk) -> None:
    line = Line(desk.store.pool)
    first = await line.run(pid)
    for statement, error in (("begin; select 1/0", errors.DivisionByZero), ("select 1", Unavailable)):
        with pytest.raises(error):
            await line.run(lambda connection, statement=statement: connection.execute(statement))  # type: ignore[misc]  # as in notify.py
    assert await line.run(pid) != first
    await line.close()


async def test_a_refused_statement_costs_no_connection(desk: Desk) -> None:
    line = Line(desk.store.pool)
    first = await line.run(pid)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await line.run(lambda connection: connection.execute("select 1/0"))
    assert await line.run(pid) == first
    await line.close()


async def test_statements_of_a_line_go_one_at_a_time(desk: Desk) -> None:
    line = Line(desk.store.pool)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        numbers = [group.create_task(line.run(pid)) for _ in range(20)]
    assert len({number.result() for number in numbers}) == 1
    await line.close()


@pytest.mark.parametrize("turns", range(8))
async def test_a_loop_that_is_cancelled_while_it_gets_its_connection_ends(desk: Desk, turns: int) -> None:
    """The pool waits with ``asyncio.wait_for``, which loses a cancellation that meets the connection's arrival (Python before 3.12)."""
    pool, line = desk.store.pool, Line(desk.store.pool)
    taken = [await pool.getconn() for _ in range(pool.max_size)]

    async def loop() -> None:
        while True:
            await line.run(pid)

    task = asyncio.ensure_future(loop())
    async with asyncio.timeout(5):
        while not pool.get_stats().get("requests_waiting", 0):
            await asyncio.sleep(0)
    await pool.putconn(taken.pop())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=2)
    task.cancel()
    await asyncio.wait([task])
    await line.close()
    for connection in taken:
        await pool.putconn(connection)
    assert done


@pytest.mark.parametrize("traces", [False, True])
async def test_a_connection_that_nobody_used_for_a_while_is_asked_and_given(dsn: str, traces: bool) -> None:
    """The question is an empty statement, which makes no span."""
    async with open_pool(dsn, traces=traces) as pool:
        async with pool.connection():
            pass
        await asyncio.sleep(FRESH + 0.1)
        async with asyncio.timeout(0.9), pool.connection() as rested:  # after one that fails to answer the pool rests for a second
            assert await pid(rested)
            await rested.execute(" ")


async def test_a_question_that_fails_by_a_fault_of_ours_is_said(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(connection: Connection) -> None:
        raise IndexError(connection)

    async with open_pool(dsn) as pool:
        async with pool.connection():
            pass
        await asyncio.sleep(FRESH + 0.1)
        monkeypatch.setattr(AsyncConnectionPool, "check_connection", ask)
        with capture_logs() as said, pytest.raises(PoolTimeout):
            await pool.getconn(0.1)
    assert said[0]["event"] == "a connection cannot be asked whether it is still there"


async def test_a_dsn_that_cannot_be_read_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="DB_DSN cannot be read"):
        async with open_pool("postgresql://[broken"):
            pass
