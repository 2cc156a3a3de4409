"""Our tables."""

from datetime import UTC, datetime, timedelta
from typing import Any

from taskrunner.commands.doctor.finding import Finding, Patient, critical, warning
from taskrunner.commands.words import span
from taskrunner.store.examination import indexes_of_schema

AHEAD = 2  # days; a scheduler makes seven
LEFT = 5  # times what lets autovacuum begin
NO_UPKEEP = "see that a scheduler runs, and what it logs of the loop 'leaves'"


async def indexes(patient: Patient) -> list[Finding]:
    """Every index is there, and of use."""
    valid = {row.name: row.valid for row in await patient.database.ask("doctor_indexes")}
    found = [
        warning(
            f"the index {name} is invalid: its making was cut off, it costs and serves nobody", f"DROP INDEX {name}, then make it again"
        )
        for name, good in sorted(valid.items())
        if not good
    ]
    missing = sorted(indexes_of_schema() - valid.keys())
    if missing:
        remedy = "make them again as in schema/*.sql, with CREATE INDEX CONCURRENTLY"
        found.append(critical(f"indexes are missing: {', '.join(missing)}; claims and pages read whole tables", remedy))
    return found


async def autovacuum(patient: Patient) -> list[Finding]:
    """It may work, everywhere."""
    settings = {row.name: row.setting for row in await patient.database.ask("doctor_settings", names=["autovacuum", "track_counts"])}
    found = [
        critical(f"{name} is off: dead rows stay for ever", f"set {name} = on: ALTER SYSTEM, then SELECT pg_reload_conf()")
        for name, setting in settings.items()
        if setting == "off"
    ]
    return found + [
        critical(f"autovacuum is turned off for {row.name}: dead rows stay for ever", f"ALTER TABLE {row.name} RESET (autovacuum_enabled)")
        for row in await patient.database.ask("doctor_vacuum")
        if not row.enabled
    ]


async def dead_rows(patient: Patient) -> list[Finding]:
    """Vacuum keeps up with the hot table."""
    return [
        warning(
            f"{row.name} has {row.dead:,} dead rows beside {row.alive:,} live ones, and vacuum was there {span(row.seconds)} ago",
            f"look for what keeps it back (transactions, slots, locks); VACUUM {row.name} says what it could not remove",
        )
        for row in await patient.database.ask("doctor_vacuum")
        if row.name == "tasks_live" and row.dead >= LEFT * row.threshold and row.seconds >= patient.limits.unvacuumed
    ]


async def leaves(patient: Patient) -> list[Finding]:
    """The days of finished tasks and attempts are made ahead, and dropped when they are over."""
    rows = await patient.database.ask("doctor_leaves")
    found = []
    for row in rows:
        if row.for_the_rest:
            words = f"{row.name} is a default partition of {row.parent} (about {row.n:,} rows): days can neither be attached nor detached"
            found.append(critical(words, f"ALTER TABLE {row.parent} DETACH PARTITION {row.name}, then insert its rows into {row.parent}"))
        elif row.pending:
            remedy = (
                f"end the transaction that reads it; upkeep goes on within the hour, or ALTER TABLE … DETACH PARTITION {row.name} FINALIZE"
            )
            found.append(warning(f"the detach of {row.name} was cut off and is pending", remedy))
        elif row.pending is None:
            words = f"{row.name} is detached and not dropped"
            found.append(warning(words, f"to keep it, rename it; else the next hour's upkeep drops it: {NO_UPKEEP}"))
    return found + _days_of(patient, [row for row in rows if row.day and row.pending is not None], rows[0].today)


def _days_of(patient: Patient, rows: list[Any], today: str) -> list[Finding]:
    now = _day(today)
    found = []
    for parent in ("tasks_finished", "attempts"):
        days = {_day(row.day): row.name for row in rows if row.parent == parent}
        missing = [f"{now + timedelta(days=n):%Y-%m-%d}" for n in range(AHEAD + 1) if now + timedelta(days=n) not in days]
        if missing:
            words = f"{parent} has no leaf for {', '.join(missing)}: who finishes a task then has to make it first"
            found.append(warning(words, NO_UPKEEP))
        # Upkeep looks once an hour, and a day of attempts is kept while the oldest live task may have some in it.
        over = now - timedelta(seconds=patient.settings.retention) - timedelta(days=2)
        late = [name for day, name in sorted(days.items()) if day < over]
        if late and parent == "tasks_finished":
            words = f"{len(late)} days of {parent} are older than TASKRUNNER_RETENTION and still there, from {late[0]} on"
            found.append(warning(words, f"{NO_UPKEEP}; a long transaction that reads them keeps them"))
    return found


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)
