"""A PostgreSQL with all its safeguards on, and databases in it to fall ill."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from taskrunner.commands.doctor.finding import Finding, Limits
from taskrunner.commands.doctor.report import Report, examine
from taskrunner.settings import Settings
from taskrunner.store import leaves, migrate
from taskrunner.store.embedded import Embedded

# What the faults need, and nothing that would be a fault itself. Autovacuum must not heal what a test has planted.
OPTIONS = {"wal_level": "logical", "max_wal_senders": "5", "max_prepared_transactions": "5", "autovacuum_naptime": "1h"}
HEALTHY = "healthy"
DUE = "insert into tasks_live (task_type, payload, run_at) values ('{type}', '{{}}', now() - interval '10 minutes')"
LATER = "insert into tasks_live (task_type, payload, run_at) select 'x', '{{}}', now() + interval '1 day' from generate_series(1, {})"
DAY = "to_char(now() at time zone 'UTC' + interval '{} days', 'YYYYMMDD')"


class Untold(Settings):
    """Settings that say nothing of an API, on a machine where none is at the usual place, even where a developer has one running."""

    api_url: str = "http://localhost:1"


@dataclass
class Bed:
    """A database with our schema, its days, and a worker that beats: nothing is wrong with it but that no scheduler and no API run."""

    dsn: str

    async def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run them, each by itself; the rows of the last one."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def transaction(self, *statements: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """One that is open, of a program with a name."""
        async with await psycopg.AsyncConnection.connect(self.dsn, application_name="a forgotten shell") as connection:
            for statement in statements:
                await connection.execute(statement.encode())
            yield connection
            await connection.rollback()

    async def examine(self, *, limits: Limits | None = None, dsn: str | None = None, **settings: Any) -> Report:
        return await examine(Untold(**{"scheduler_port": 0, **settings, "db_dsn": dsn or self.dsn}), limits)

    async def found(self, **words: Any) -> dict[str, Finding]:
        """What is found beside what is always so here, by check."""
        report = await self.examine(**words)
        return {name: finding for name, finding in report.findings if name not in ("schedulers", "api")}


@asynccontextmanager
async def bed(server: Embedded, template: str = HEALTHY, more: str = "") -> AsyncIterator[Bed]:
    """A fresh one, which is gone afterwards."""
    name = f"bed_{uuid4().hex}"
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as admin:
        await admin.execute(f"create database {name} template {template} {more}".encode())
        try:
            it = Bed(make_conninfo(server.dsn, dbname=name))
            if template == HEALTHY:
                await it.sql("update sessions set beat_at = now()")
            yield it
        finally:
            await admin.execute(sql.SQL("alter database {} reset all").format(sql.Identifier(name)))
            await admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


async def prepare(server: Embedded) -> None:
    """The database that the beds are copies of."""
    async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as admin:
        await admin.execute(f"create database {HEALTHY}".encode())
    it = Bed(make_conninfo(server.dsn, dbname=HEALTHY))
    await migrate.up(it.dsn)
    async with await psycopg.AsyncConnection.connect(it.dsn, autocommit=True) as connection:
        await leaves.make(connection)
    await it.sql(
        "insert into sessions (id, name, lease_until, task_types, queues, slots) "
        "values (gen_random_uuid(), 'box:1', now() + interval '1 day', '{x}', '{*}', 10)"
    )
