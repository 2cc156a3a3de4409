"""Throw-away databases for the tests of users, on an embedded server that is kept warm in a cache folder."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from taskrunner.store.embedded import embedded_postgres

PREFIX = "taskrunner_test_"
# What is in such a database may vanish with the machine: only its speed counts.
FAST = MappingProxyType({"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "300"})
STALE = """
select datname from pg_database where datname like 'taskrunner\\_test\\_%'
and not exists (select from pg_stat_activity a where a.datname = pg_database.datname)
"""


@asynccontextmanager
async def scratch_database(folder: Path) -> AsyncIterator[str]:
    """The DSN of an empty database, this caller's alone; it is dropped at the end.

    Its server runs in ``folder`` while anybody uses it; any number of test runs may at once. What a killed run left behind is dropped by
    the next one.
    """
    async with embedded_postgres(folder, options=FAST) as server:
        name = PREFIX + uuid4().hex
        dsn = make_conninfo(server.dsn, dbname=name)
        async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as admin:
            await admin.execute("select pg_advisory_lock(7)")  # nobody takes ours for a stale one before we have connected
            for (stale,) in await (await admin.execute(STALE)).fetchall():
                with contextlib.suppress(errors.ObjectInUse, errors.InvalidCatalogName):
                    await admin.execute(sql.SQL("drop database {}").format(sql.Identifier(stale)))
            await admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True):
                await admin.execute("select pg_advisory_unlock(7)")
                yield dsn
            await admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
