"""Makes every check, and says what came out: exit code 0 when all is well, 1 with warnings, 2 when something is critical."""

import asyncio
import importlib.metadata
import sys
from typing import Any, NamedTuple

from taskrunner.commands.codes import Arguments
from taskrunner.commands.doctor import reach, server, tables, work
from taskrunner.commands.doctor.finding import Check, Finding, Limits, Patient, Severity, critical, warning
from taskrunner.commands.words import clean, show_json
from taskrunner.domain.errors import TaskrunnerError
from taskrunner.process import database
from taskrunner.settings import Settings
from taskrunner.store import migrate
from taskrunner.store.examination import Examination, examination

# In the order in which they are made and told.
OF_THE_SERVER: dict[str, Check] = {
    "server": server.version,
    "durability": server.durability,
    "clock": server.clock,
    "connections": server.connections,
    "transactions": server.transactions,
    "prepared transactions": server.prepared,
    "replication": server.replication,
    "wraparound": server.wraparound,
    "disk": server.disk,
    "api": reach.api,
}
OF_THE_SERVICE: dict[str, Check] = {
    "schedulers": reach.schedulers,
    "indexes": tables.indexes,
    "autovacuum": tables.autovacuum,
    "dead rows": tables.dead_rows,
    "days": tables.leaves,
    "workers": work.workers,
    "backlog": work.backlog,
    "paused": work.paused,
    "held tasks": work.held,
}
NAMES = ("database", "schema", *OF_THE_SERVER, *OF_THE_SERVICE)


class Report(NamedTuple):
    """What was looked at, what it was, and what was found, by check."""

    facts: dict[str, Any]
    findings: list[tuple[str, Finding]]

    @property
    def severity(self) -> Severity:
        """That of the worst finding."""
        return max((finding.severity for _, finding in self.findings), default=Severity.NOTE)


def run(settings: Settings, arguments: Arguments) -> int:
    """Examine, tell, and return the exit code."""
    report = asyncio.run(examine(settings))
    (_tell_json if arguments["json"] else _tell)(report)
    return int(report.severity)


async def examine(settings: Settings, limits: Limits | None = None) -> Report:
    """Every check that can be made. Raises nothing that has to do with the patient's state: that is what it is there to find."""
    report = Report({"taskrunner": importlib.metadata.version("taskrunner")}, [])
    if settings.db_dsn is None and not (settings.data_dir / "pgdata").exists():
        words = f"DB_DSN is not set, and there is no embedded PostgreSQL in {settings.data_dir}"
        report.findings.append(("database", critical(words, "set DB_DSN, or start taskrunner")))
        return report
    try:
        async with database(settings) as found, examination(found.dsn) as look:
            await _examine(Patient(look, settings, limits or Limits()), found.dsn, report)
    except TaskrunnerError as error:
        words = f"the database does not answer: {error}"
        report.findings.append(("database", critical(words, "start it, and see that DB_DSN leads there; nothing else was looked at")))
    return report


async def _examine(patient: Patient, dsn: str, report: Report) -> None:
    report.facts.update(await _facts(patient.database))
    schema = await _schema(dsn)
    report.findings.extend(("schema", finding) for finding in schema)
    for name, check in (OF_THE_SERVER if schema else OF_THE_SERVER | OF_THE_SERVICE).items():
        try:
            findings = await check(patient)
        except TaskrunnerError as error:
            findings = [warning(f"this could not be looked at: {error}", "give doctor a DB_DSN whose role may, and look again")]
        report.findings.extend((name, finding) for finding in findings)


async def _facts(look: Examination) -> dict[str, Any]:
    (found,) = await look.ask("doctor_server")
    return {"postgresql": found.version, "database_bytes": found.size, "schema": migrate.newest_version()}


async def _schema(dsn: str) -> list[Finding]:
    """Whether the schema is that of this version."""
    try:
        pending = await migrate.check(dsn)
    except TaskrunnerError as error:
        return [critical(str(error), "run doctor with the version and the role that the services have")]
    if not pending:
        return []
    names = ", ".join(migration.name for migration in pending)
    return [critical(f"files of the schema are not applied: {names}", "start a scheduler of this version, or taskrunner migrate up")]


def _tell_json(report: Report) -> None:
    found = [
        {"check": name, "severity": finding.severity.name.lower(), "what": finding.what, "remedy": finding.remedy}
        for name, finding in report.findings
    ]
    healthy = report.severity is Severity.NOTE
    show_json({"healthy": healthy, **report.facts, "checks": [*NAMES], "findings": found})


def _tell(report: Report) -> None:
    facts = report.facts
    words = [f"taskrunner {facts['taskrunner']}"]
    if "postgresql" in facts:
        words += [f"PostgreSQL {facts['postgresql']}", f"schema {facts['schema']}", f"{facts['database_bytes'] / 1e6:,.0f} MB"]
    lines = [", ".join(words), ""]
    for name, finding in sorted(report.findings, key=lambda one: -one[1].severity):
        lines += [f"{finding.severity.name.lower():<9} {name}: {clean(finding.what)}", f"{'':<9} → {clean(finding.remedy)}"]
    if report.severity is Severity.NOTE:
        lines.append(f"healthy: {len(NAMES)} checks")
    sys.stdout.write("\n".join(lines) + "\n")
