"""PostgreSQL itself."""

import shutil
import time
from datetime import UTC, datetime

from taskrunner.commands.doctor.finding import Finding, Patient, critical, note, warning
from taskrunner.commands.words import span

OLDEST = 150_000
CRASH = {
    "fsync": "a crash of the machine can destroy the database",
    "full_page_writes": "a crash of the machine can destroy the database",
    "synchronous_commit": "a task that was accepted can be lost when the server crashes",
}
FULL = 0.95
FOR_ALL = "ALTER SYSTEM, then SELECT pg_reload_conf()"


async def version(patient: Patient) -> list[Finding]:
    """PostgreSQL 15 or newer, as a primary, in UTF-8."""
    (server,) = await patient.database.ask("doctor_server")
    found = []
    if server.number < OLDEST:
        found.append(critical(f"this is PostgreSQL {server.version}: 15 is the oldest that works", "upgrade the server"))
    if server.standby:
        found.append(critical("the server is a standby: nothing can be written", "point DB_DSN at the primary"))
    elif server.read_only:
        remedy = "ALTER DATABASE (or ALTER ROLE) … RESET default_transaction_read_only"
        found.append(critical("default_transaction_read_only is on: nothing can be written", remedy))
    if server.encoding != "UTF8":
        remedy = "CREATE DATABASE … ENCODING 'UTF8', and move there"
        found.append(critical(f"the database's encoding is {server.encoding}: payloads are not safe in it", remedy))
    if not server.sees_all:
        remedy = "GRANT pg_monitor to the role of DB_DSN, or give doctor a DB_DSN with another role"
        found.append(note("transactions and connections of other roles cannot be seen with this role", remedy))
    return found


async def durability(patient: Patient) -> list[Finding]:
    """A commit is on disk before it is answered."""
    settings = {row.name: row.setting for row in await patient.database.ask("doctor_settings", names=[*CRASH])}
    return [
        critical(f"{name} is off: {danger}", f"set {name} = on: {FOR_ALL}; or ALTER DATABASE … RESET {name} where it is set there")
        for name, danger in CRASH.items()
        if settings.get(name) == "off"
    ]


async def clock(patient: Patient) -> list[Finding]:
    """The database is the clock of the service; clients choose ``run_at`` by their own."""
    asked = time.monotonic()
    here = datetime.now(UTC)  # noqa: TID251 — the question is how far this clock is from the database's
    (server,) = await patient.database.ask("doctor_server")
    skew = (server.now - here).total_seconds() - (time.monotonic() - asked) / 2
    if abs(skew) <= patient.limits.skew + (time.monotonic() - asked):
        return []
    words = f"the database's clock is {span(abs(skew))} {'ahead of' if skew > 0 else 'behind'} this machine's"
    return [warning(f"{words}: run_at of clients here means another moment there", "synchronise both by NTP (chronyc tracking)")]


async def connections(patient: Patient) -> list[Finding]:
    """There is room for another one."""
    found = []
    for row in await patient.database.ask("doctor_connections"):
        if row.used >= patient.limits.connections * row.most:
            words = f"{row.used} of the {row.most} connections that {row.what} may have are in use ({row.whose})"
            remedy = "raise the limit (max_connections, or CONNECTION LIMIT of database or role), run fewer processes, or use PgBouncer"
            found.append((critical if row.used >= FULL * row.most else warning)(words, remedy))
    return found


async def transactions(patient: Patient) -> list[Finding]:
    """No snapshot is so old that dead rows pile up."""
    return [
        warning(
            f"a transaction of {row.who} ({row.program} on {row.place}, pid {row.pid}, {row.state}) is open for {span(row.seconds)}"
            + (f" and blocks {row.blocks} others" if row.blocks else ": vacuum must keep what has died since"),
            f"end it there, or SELECT pg_terminate_backend({row.pid})",
        )
        for row in await patient.database.ask("doctor_transactions", seconds=patient.limits.transaction)
    ]


async def prepared(patient: Patient) -> list[Finding]:
    """No prepared transaction was forgotten."""
    return [
        critical(
            f"the prepared transaction {row.gid!r} of {row.who} is {span(row.seconds)} old, and holds locks and a snapshot, over restarts",
            f"COMMIT PREPARED or ROLLBACK PREPARED '{row.gid}'",
        )
        for row in await patient.database.ask("doctor_prepared", seconds=patient.limits.prepared)
    ]


async def replication(patient: Patient) -> list[Finding]:
    """No slot keeps WAL or snapshots for somebody who does not come."""
    found = []
    for row in await patient.database.ask("doctor_slots"):
        if not row.active:
            kept = f"keeps {row.kept / 1e6:,.0f} MB of WAL" + (" and a snapshot" if row.xid_age else "")
            words = f"nobody uses the replication slot {row.name}: it {kept}, and more each day"
            remedy = f"start its reader, or SELECT pg_drop_replication_slot('{row.name}')"
            found.append((critical if row.kept >= patient.limits.kept_wal else warning)(words, remedy))
        elif row.xid_age >= patient.limits.old_snapshot:
            words = f"{row.name} holds a snapshot that is {row.xid_age:,} transactions old: vacuum must keep what has died since"
            found.append(warning(words, "end long queries on the standby, or turn its hot_standby_feedback off"))
    return found


async def wraparound(patient: Patient) -> list[Finding]:
    """Transaction numbers are not used up."""
    (server,) = await patient.database.ask("doctor_server")
    if server.xid_age < patient.limits.xid_age:
        return []
    words = f"the oldest rows are {server.xid_age:,} transactions old: at 2,100,000,000 PostgreSQL refuses to write"
    return [critical(words, "VACUUM FREEZE the database, and end what keeps vacuum back (transactions, slots)")]


async def disk(patient: Patient) -> list[Finding]:
    """There is room for an embedded database; how much there is elsewhere a client cannot see."""
    if patient.settings.db_dsn is not None:
        return []
    usage = shutil.disk_usage(patient.settings.data_dir)
    if usage.free >= patient.limits.free_disk * usage.total:
        return []
    words = f"{usage.free / 1e9:,.1f} GB of {usage.total / 1e9:,.1f} GB are free in {patient.settings.data_dir}"
    return [warning(words, "make room, shorten TASKRUNNER_RETENTION, or move TASKRUNNER_DATA_DIR")]
