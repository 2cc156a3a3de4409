"""Streams of tasks: each on a connection of its own, all of it or nothing, whatever its length."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from psycopg import AsyncConnection
from psycopg.errors import IntegrityError

from taskrunner.domain.errors import BadTask, Conflict, Unavailable
from taskrunner.domain.task import Lane, NewTask
from taskrunner.store import columns
from taskrunner.store.creating import BAD_DATA, columns_of
from taskrunner.store.pool import SESSION, Connection, translated
from taskrunner.store.queries import sql
from taskrunner.store.tasks import Store

MOST = 2  # at once in this process
# The statement that moves a million tasks takes longer than others may; rows come out in the order in which they went in.
IMPORTING = f"{SESSION}; set statement_timeout = 0; set synchronize_seqscans = off"


class Import:
    """One stream. Nothing of it is there before :meth:`commit` returns."""

    def __init__(self, store: Store, connection: Connection) -> None:
        self._store = store
        self._connection = connection

    async def add(self, tasks: Sequence[NewTask]) -> None:
        """Take these tasks, in their order. Raises BadTask for the first one that the database refuses."""
        with translated():
            try:
                await self._connection.execute(sql("import_tasks"), columns_of(tasks), binary=True)
            except BAD_DATA as error:
                raise await self._culprit(tasks) or error from error

    async def _culprit(self, tasks: Sequence[NewTask]) -> BadTask | None:
        for number, task in enumerate(tasks):
            try:
                async with self._connection.transaction(force_rollback=True):
                    await self._connection.execute(sql("import_tasks"), columns_of([task]), binary=True)
            except BAD_DATA as error:
                return BadTask(number, (error.diag.message_primary or str(error)).split("\n", 1)[0])
        return None

    async def commit(self) -> None:
        """Make them tasks, in one statement. Raises OutcomeUnknown when the commit got no answer."""
        with translated(writes=True):
            try:
                await self._connection.execute(sql("import_move"), prepare=False)
            except (*BAD_DATA, IntegrityError) as error:
                raise BadTask(0, (error.diag.message_primary or str(error)).split("\n", 1)[0]) from error
        with translated():
            rows = await (await self._connection.execute(sql("import_lanes"))).fetchall()
        for row in rows:
            self._store.hints.lane(Lane(*row[:3]), row[3], max(0.0, row[4]))
            self._store.meter.create(row[0], row[1], row[5])

    async def answer(self) -> AsyncIterator[bytes]:
        """Ids and statuses in the order of the stream, as lines of JSON."""
        with translated():
            async with self._connection.cursor().copy(sql("import_answer")) as rows:
                async for block in rows:
                    yield bytes(block)


class Imports:
    """Streams under way in this process, a few at most."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Import]:
        """A stream, on a connection that ends with it. Raises Unavailable when there are enough already, Conflict without sessions."""
        if self._store.settings.pgbouncer:
            raise Conflict("a stream needs a session of the database, and there is a PgBouncer between: send arrays of up to 10,000 tasks")
        if self._open >= MOST:
            raise Unavailable(f"{MOST} streams of tasks are being read already: ask again later")
        self._open += 1
        try:
            with translated():
                connection: Connection = await AsyncConnection.connect(
                    self._store.dsn, autocommit=True, application_name="taskrunner", connect_timeout=5
                )
            async with connection:
                columns.register(connection.adapters)
                with translated():
                    await connection.execute(IMPORTING, prepare=False)
                    await connection.execute(sql("import_table"), columns_of([]), prepare=False)
                yield Import(self._store, connection)
        finally:
            self._open -= 1
