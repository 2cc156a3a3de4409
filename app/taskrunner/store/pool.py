"""The one pool of a process, and the connections that its loops keep for life."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from taskrunner.domain.errors import ConfigurationError, OutcomeUnknown, TooSlow, Unavailable
from taskrunner.kit.trace import Tracer
from taskrunner.store import columns
from taskrunner.store.tracing import traced_cursor

log = structlog.get_logger()
Connection = AsyncConnection[Any]
R = TypeVar("R")

# A connection that answers so is of no use any more: the server goes down, or became a standby; its transaction failed and was left open; a
# statement was prepared for tables that are different now.
DEAD_STATES = frozenset({"57P01", "57P02", "57P03", "25006", "25P02", "0A000"})
# A write that ends so may have been committed all the same.
UNKNOWN_STATES = frozenset({"08000", "08003", "08006", "57P01", "57P02", "40003"})
FRESH = 0.5  # seconds
SESSION = "set timezone = 'UTC'; set statement_timeout = '5s'; set lock_timeout = '1s'; set idle_in_transaction_session_timeout = '10s'"


async def set_session(pool: AsyncConnectionPool[Connection], connection: Connection, setup: str) -> None:
    """Run ``setup``, which changes settings of the session. Nothing where the session is a pooler's: the next in it may be anybody."""
    if not (isinstance(pool, _Pool) and pool.shared):
        await connection.execute(setup, prepare=False)


class _Connection(AsyncConnection[Any]):
    """Knows when it was used last."""

    used_at = 0.0  # monotonic


async def _check(connection: Connection) -> None:
    """Raise for a connection that broke while nobody used it. One that was in use a moment ago is not asked: it would cost every batch a
    round trip.
    """
    if isinstance(connection, _Connection) and time.monotonic() - connection.used_at > FRESH:
        try:
            await AsyncConnectionPool.check_connection(connection)
        except Exception as error:
            if not isinstance(error, psycopg.Error):  # a fault of ours: the pool would try again and again without a word
                log.exception("a connection cannot be asked whether it is still there")
            raise


async def _note_use(connection: Connection) -> None:
    if isinstance(connection, _Connection):
        connection.used_at = time.monotonic()


class _Pool(AsyncConnectionPool[Connection]):
    """psycopg's pool, which waits with ``asyncio.wait_for``: before Python 3.12 that loses a cancellation that meets the connection's
    arrival, and a loop that was told to stop would go on for ever.

    ``shared``: behind its connections there are no sessions of ours, but a pooler's, each for one transaction.
    """

    shared = False

    async def getconn(self, timeout: float | None = None) -> Connection:  # noqa: ASYNC109 — psycopg's own signature
        before = _cancellations()
        connection = await super().getconn(timeout)
        if _cancellations() > before:
            await self.putconn(connection)
            raise asyncio.CancelledError
        return connection


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@asynccontextmanager
async def open_pool(dsn: str, *, traces: bool = False, shared: bool = False) -> AsyncIterator[AsyncConnectionPool[Connection]]:
    """The pool, open but not necessarily connected: the database may come later. ``traces``: statements make spans. ``shared``: ``dsn``
    leads to a pooler that gives a session for one transaction.

    Raises ConfigurationError for an unreadable DSN.
    """
    try:
        psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise ConfigurationError(f"DB_DSN cannot be read: {error}") from None

    async def greet(connection: Connection) -> None:
        columns.register(connection.adapters)
        await _note_use(connection)
        if shared:
            connection.prepare_threshold = None
        else:
            await connection.execute(SESSION, prepare=False)

    kwargs = {
        "autocommit": True,
        "application_name": "taskrunner",
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        **({"cursor_factory": traced_cursor(Tracer())} if traces else {}),
    }
    pool = _Pool(
        dsn,
        kwargs=kwargs,
        min_size=1,
        max_size=12,
        timeout=2,
        max_waiting=2_000,
        configure=greet,
        check=_check,
        reset=_note_use,
        connection_class=_Connection,
        open=False,
        name="taskrunner",
        reconnect_timeout=2,
    )
    pool.shared = shared
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


@contextmanager
def translated(*, writes: bool = False) -> Iterator[None]:
    """Say in our words why a statement failed. With ``writes``, a connection that broke in between leaves the outcome unknown."""
    try:
        yield
    except errors.QueryCanceled as error:
        raise TooSlow(f"the database is busy: {_line(error)}") from error
    except (PoolTimeout, errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure) as error:
        raise Unavailable(f"the database is busy: {_line(error)}") from error
    except (errors.UndefinedTable, errors.UndefinedFunction) as error:
        raise Unavailable("the schema is not there yet; a scheduler makes it when it starts, or `taskrunner migrate up`") from error
    except (errors.InFailedSqlTransaction, errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout) as error:
        raise Unavailable(f"the database gave the transaction up: {_line(error)}") from error  # before its commit: nothing of it is written
    except (errors.DependentObjectsStillExist, errors.FeatureNotSupported) as error:  # a view of somebody's, a plan for a table as it was
        raise Unavailable(f"something in the database is in the way: {_line(error)}") from error
    except errors.InsufficientPrivilege as error:
        raise Unavailable(f"the role of DB_DSN may not do that: {_line(error)}; schema/roles/roles.sql grants what is needed") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        if writes and (error.sqlstate or "08000") in UNKNOWN_STATES:
            raise OutcomeUnknown("the connection to the database broke while it was writing; whether it did is not known") from error
        raise Unavailable(f"the database is away: {_line(error)}") from error
    except errors.ReadOnlySqlTransaction as error:
        raise Unavailable("the database is read-only: it is a standby now") from error


def _line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0] or type(error).__name__


class Line:
    """A connection of the pool that one loop keeps for life, opened anew when it broke. ``setup`` is what it sets on the session."""

    def __init__(self, pool: AsyncConnectionPool[Connection], *, setup: str = "") -> None:
        self._pool = pool
        self._setup = setup
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[[Connection], Awaitable[R]], *, writes: bool = False) -> R:
        """``work`` on the connection, one at a time. A connection that is of no use any more is given up; the next call opens another."""
        async with self._turn:
            return await self._run(work, writes=writes)

    async def _run(self, work: Callable[[Connection], Awaitable[R]], *, writes: bool) -> R:
        connection = self._connection
        with translated():
            if connection is None or connection.closed:
                connection = await self._open()
        try:
            with translated(writes=writes):
                return await work(connection)
        except BaseException as error:
            cause = error.__cause__ or error
            if not isinstance(cause, psycopg.Error) or connection.closed or cause.sqlstate in DEAD_STATES:
                await self.close(broken=True)
            raise

    async def _open(self) -> Connection:
        await self.close(broken=True)
        connection = await self._pool.getconn()
        try:
            if self._setup:
                await set_session(self._pool, connection, self._setup)
        except BaseException:
            await connection.close()
            await self._pool.putconn(connection)
            raise
        self._connection = connection
        return connection

    async def close(self, *, broken: bool = False) -> None:
        """Give the connection back, when its loop is over; a ``broken`` one is closed first."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if broken:
                await connection.close()
            await self._pool.putconn(connection)
