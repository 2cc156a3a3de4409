"""The days of ``tasks_finished`` and ``attempts``: made a week ahead, dropped whole when retention is over."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import structlog
from psycopg import errors, sql

from taskrunner.store.pool import Connection

log = structlog.get_logger()
PARENTS = ("tasks_finished", "attempts")
AHEAD = 7
LOCK = 0x7461736B6C656166  # "taskleaf"


async def with_leaves(connection: Connection, text: str, parameters: Mapping[str, Any], *, binary: bool = True) -> list[Any]:
    """The rows of a statement that may finish tasks. Where it finds no leaf for today, the leaf is made and the statement repeated.

    PostgreSQL reports a missing leaf as a violated check without a name.
    """
    try:
        return await (await connection.execute(text, parameters, binary=binary)).fetchall()
    except errors.CheckViolation as error:
        if error.diag.constraint_name is not None:
            raise
        await make(connection)
        return await (await connection.execute(text, parameters, binary=binary)).fetchall()


def leaf(parent: str, day: date) -> str:
    """The name of a day's leaf."""
    return f"{parent}_{day:%Y%m%d}"


async def make(connection: Connection) -> None:
    """Make the leaves of today and the days ahead. Safe beside readers, writers and other schedulers.

    LIKE and ATTACH, never PARTITION OF, which would take ACCESS EXCLUSIVE and stall every settle behind one open reader.
    """
    async with connection.transaction():
        row = await (await connection.execute("select pg_advisory_xact_lock(%s), clock_timestamp()", (LOCK,))).fetchone()
        assert row is not None  # a select without a FROM has one row
        today = row[1].astimezone(UTC).date()
        for parent in PARENTS:
            have = {name for name, pending in await _leaves(connection, parent) if pending is not None}
            for day in (today + timedelta(days=n) for n in range(-1, AHEAD + 1)):
                if leaf(parent, day) not in have:
                    await _add(connection, parent, day)


async def _add(connection: Connection, parent: str, day: date) -> None:
    names = {"leaf": sql.Identifier(leaf(parent, day)), "parent": sql.Identifier(parent)}
    await connection.execute(sql.SQL("create table if not exists {leaf} (like {parent} including all)").format(**names))
    low, high = (datetime(d.year, d.month, d.day, tzinfo=UTC).isoformat() for d in (day, day + timedelta(days=1)))
    await connection.execute(
        sql.SQL("alter table {parent} attach partition {leaf} for values from ({low}) to ({high})").format(
            low=sql.Literal(low), high=sql.Literal(high), **names
        )
    )


async def drop(connection: Connection, *, retention: float) -> list[str]:
    """Detach and drop the days that ended more than ``retention`` seconds ago, and the names of those dropped.

    Days of ``attempts`` stay while the oldest live task may still have rows in them. A detach that a reader held up stays pending and is
    finished by the next pass, which also drops what a pass that broke off had detached already. A day that cannot be dropped now keeps no
    other one.
    """
    row = await (await connection.execute("select clock_timestamp() - %s * interval '1 second'", (retention,))).fetchone()
    assert row is not None
    dropped = []
    for parent in PARENTS:
        lives = False
        for name, pending in await _leaves(connection, parent):
            ended = datetime.strptime(name.removeprefix(parent + "_"), "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
            if not pending and ended <= row[0] and parent == "attempts":
                lives = lives or await _lives(connection, ended)  # if one of this day, so one of each later day
            if pending or (ended <= row[0] and not lives):
                try:
                    if pending is not None:
                        await _detach(connection, parent, name, pending=pending)
                    await connection.execute(sql.SQL("drop table {}").format(sql.Identifier(name)))
                    dropped.append(name)
                except psycopg.Error as error:  # somebody reads it, or made a view of it; a connection that broke fails the next one, too
                    log.warning("a day that was kept long enough cannot be dropped now", leaf=name, error=str(error))
    return dropped


async def _lives(connection: Connection, ended: datetime) -> bool:
    """Whether a task still lives that was created by then. It reads the whole table: ask only when something hangs on it."""
    async with connection.transaction():
        await connection.execute("set local statement_timeout = '1min'")  # with tens of millions that are for later
        row = await (await connection.execute("select exists (select from tasks_live where created_at < %s)", (ended,))).fetchone()
    assert row is not None
    return bool(row[0])


async def _detach(connection: Connection, parent: str, name: str, *, pending: bool) -> None:
    how = sql.SQL("finalize" if pending else "concurrently")
    await connection.execute("set lock_timeout = '2s'")
    try:
        await connection.execute(sql.SQL("alter table {} detach partition {} {}").format(sql.Identifier(parent), sql.Identifier(name), how))
    finally:
        await connection.execute("set lock_timeout = '1s'")


async def _leaves(connection: Connection, parent: str) -> list[tuple[str, bool | None]]:
    """The names of the parent's leaves, and whether the detach of each is pending; None for one that is detached."""
    rows = await connection.execute(
        "select c.relname, i.inhdetachpending from pg_class p"
        " join pg_class c on c.relnamespace = p.relnamespace and c.relkind = 'r' and c.relname ~ ('^' || p.relname || '_[0-9]{8}$')"
        " left join pg_inherits i on i.inhrelid = c.oid where p.oid = %s::regclass order by 1",
        (parent,),
    )
    return await rows.fetchall()
