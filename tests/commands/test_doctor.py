"""``taskrunner doctor`` finds what was planted, and nothing else."""

import asyncio
import json
import re
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from commands.ward import DAY, DUE, LATER, Bed, bed
from psycopg.conninfo import make_conninfo

from taskrunner.cli import main
from taskrunner.client import Client
from taskrunner.commands.doctor import server as server_checks
from taskrunner.commands.doctor.finding import Limits, Patient, Severity
from taskrunner.commands.doctor.report import NAMES, examine
from taskrunner.domain.errors import TaskrunnerError
from taskrunner.process import opened
from taskrunner.settings import Settings
from taskrunner.store.embedded import Embedded
from taskrunner.store.examination import examination, indexes_of_schema


async def test_nothing_is_found_where_nothing_is_wrong(patient: Bed) -> None:
    assert await patient.found() == {}
    report = await patient.examine()
    assert [(name, finding.severity) for name, finding in report.findings] == [("api", Severity.NOTE), ("schedulers", Severity.CRITICAL)]


async def test_a_running_service_is_healthy(ward: Embedded, patient: Bed) -> None:
    await patient.sql("delete from sessions")
    ours = Settings(http_port=0, scheduler_port=0, worker_port=0, db_dsn=patient.dsn, grace=1, scheduler_address=())
    async with opened(ours) as where, Client(where["api"]) as client:
        async with asyncio.timeout(20):
            while not await client.workers():
                await asyncio.sleep(0.02)
        report = await patient.examine(scheduler_address=where["scheduler"], api_url=where["api"])
        assert report.findings == []
        assert report.severity is Severity.NOTE
        assert report.facts["schema"] == max(row[0] for row in await patient.sql("select version_id from goose_db_version"))
        # Not told where they are, it finds them at the database.
        report = await patient.examine()
        assert [name for name, _ in report.findings] == ["api"]


async def test_an_open_transaction_and_whom_it_blocks(patient: Bed) -> None:
    async with patient.transaction("lock table gates in access exclusive mode") as holder, asyncio.TaskGroup() as group:
        waiting = group.create_task(patient.sql("insert into gates values ('queue', 'q', 'infinity')"))
        while not await patient.sql("select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"):
            await asyncio.sleep(0.01)
        report = await patient.examine(limits=Limits(transaction=0))
        (found,) = [finding.what for name, finding in report.findings if name == "transactions" and "a forgotten shell" in finding.what]
        assert f"pid {holder.info.backend_pid}" in found
        assert "blocks 1 others" in found
        # What it keeps us from looking at is said, too.
        assert {"paused", "backlog"} <= {name for name, finding in report.findings if "could not be looked at" in finding.what}
        await holder.rollback()
        await waiting


async def test_a_prepared_transaction(patient: Bed) -> None:
    async with patient.transaction("select now()", "prepare transaction 'left behind'"):
        found = await patient.found(limits=Limits(prepared=0))
        assert "'left behind' of postgres is" in found["prepared transactions"].what
        assert await patient.found() == {}
        await patient.sql("rollback prepared 'left behind'")


async def test_an_index_whose_making_was_cut_off(patient: Bed) -> None:
    await patient.sql(LATER.format(2))
    with suppress(psycopg.errors.UniqueViolation):
        await patient.sql("create unique index concurrently half_made on tasks_live (task_type)")
    assert "half_made is invalid" in (await patient.found())["indexes"].what


async def test_a_detach_that_was_cut_off(patient: Bed) -> None:
    ((day,),) = await patient.sql(f"select {DAY.format(3)}")
    async with patient.transaction(f"select from tasks_finished_{day}"):
        with suppress(psycopg.errors.LockNotAvailable):
            await patient.sql("set lock_timeout = '50ms'", f"alter table tasks_finished detach partition tasks_finished_{day} concurrently")
    assert f"the detach of tasks_finished_{day} was cut off" in (await patient.found())["days"].what


async def test_a_clock_that_is_wrong(patient: Bed) -> None:
    await patient.sql(
        "create schema wrong",
        "create function wrong.clock_timestamp() returns timestamptz language sql as 'select pg_catalog.now() + interval ''1 hour'''",
    )
    found = await patient.found(dsn=make_conninfo(patient.dsn, options="-c search_path=wrong,pg_catalog,public"))
    assert "59 min" in found["clock"].what or "1 h 0 min ahead of" in found["clock"].what


async def test_an_encoding_that_is_none(ward: Embedded) -> None:
    async with bed(ward, "template0", "encoding 'SQL_ASCII' locale 'C'") as it:
        found = await it.found()
    assert "SQL_ASCII" in found["server"].what
    assert "not applied" in found["schema"].what


async def test_a_role_that_may_see_little(patient: Bed) -> None:
    await patient.sql("do $$ begin create role visitor login; exception when duplicate_object then null; end $$")
    found = await patient.found(dsn=make_conninfo(patient.dsn, user="visitor"))
    assert {name: finding.severity for name, finding in found.items()} == {"server": Severity.NOTE, "schema": Severity.CRITICAL}
    assert "may not read goose_db_version" in found["schema"].what
    await patient.sql("grant select on goose_db_version to visitor")
    found = await patient.found(dsn=make_conninfo(patient.dsn, user="visitor"))
    assert "permission denied for table" in found["backlog"].what


@pytest.mark.parametrize("role", ["taskrunner_api", "taskrunner_scheduler"])
async def test_the_roles_of_the_service_see_all_that_it_asks(role: str, patient: Bed) -> None:
    await patient.sql((Path(__file__).parents[2] / "schema" / "roles" / "roles.sql").read_text())
    assert await patient.found(dsn=make_conninfo(patient.dsn, user=role)) == {}


async def test_a_server_that_may_lose_what_it_has(dsn: str) -> None:
    report = await examine(Settings(db_dsn=dsn))
    assert {finding.what.split()[0] for name, finding in report.findings if name == "durability"} == {"fsync", "full_page_writes"}


async def test_an_old_server_and_numbers_that_run_out(patient: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_checks, "OLDEST", 990_000)
    found = await patient.found(limits=Limits(xid_age=0))
    assert "is the oldest that works" in found["server"].what
    assert "transactions old" in found["wraparound"].what


async def test_a_disk_that_is_full(patient: Bed, tmp_path: Path) -> None:
    async with examination(patient.dsn) as look:
        embedded = Settings(data_dir=tmp_path)
        assert await server_checks.disk(Patient(look, embedded, Limits(free_disk=0))) == []
        (found,) = await server_checks.disk(Patient(look, embedded, Limits(free_disk=1)))
    assert f"are free in {tmp_path}" in found.what


async def test_it_says_when_there_is_no_database(unused_tcp_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["doctor", f"--db-dsn=postgres://127.0.0.1:{unused_tcp_port}/tasks", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["healthy"], [one["check"] for one in document["findings"]]) == (False, ["database"])
    assert await asyncio.to_thread(main, ["doctor", f"--data-dir={tmp_path}"]) == 2
    assert f"DB_DSN is not set, and there is no embedded PostgreSQL in {tmp_path}" in capsys.readouterr().out


async def test_who_is_not_reached(patient: Bed, unused_tcp_port: int) -> None:
    nobody = f"127.0.0.1:{unused_tcp_port}"
    report = await patient.examine(scheduler_address=nobody, api_url=f"http://{nobody}")
    assert {name: finding.severity for name, finding in report.findings} == {"schedulers": Severity.CRITICAL, "api": Severity.WARNING}
    with_one = Settings(http_port=0, scheduler_port=0, worker_port=0, db_dsn=patient.dsn, grace=1, roles=("scheduler",))
    async with opened(with_one) as where:
        report = await patient.examine(scheduler_address=f"{where['scheduler']},{nobody},nowhere.invalid:1")
    found = [finding.what for name, finding in report.findings if name == "schedulers"]
    assert [what.split()[2] for what in found] == [nobody, "nowhere.invalid:1"]
    behind = await patient.examine(pgbouncer=True)
    assert [finding.severity for name, finding in behind.findings if name == "schedulers"] == [Severity.WARNING]


async def test_what_it_says_and_its_code(patient: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    await patient.sql(DUE.format(type="y\x1b[2J"), "insert into gates values ('queue', 'idle', 'infinity')")
    async with opened(
        Settings(http_port=0, scheduler_port=0, worker_port=0, db_dsn=patient.dsn, grace=1, roles=("scheduler", "api"))
    ) as where:
        flags = [f"--db-dsn={patient.dsn}", f"--scheduler-address={where['scheduler']}", f"--api-url={where['api']}"]
        assert await asyncio.to_thread(main, ["doctor", *flags]) == 1
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert re.search(r"(?m)^warning   backlog: 1 task of type y\\x1b\[2J in queue default is due, the first for 10 min", out)
        assert re.search(r"(?m)^note      paused: the queue idle is paused\n          → taskrunner queue resume idle$", out)
        await patient.sql("delete from tasks_live")
        assert await asyncio.to_thread(main, ["doctor", *flags, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
    assert (document["healthy"], tuple(document["checks"]), len(document["findings"])) == (True, NAMES, 1)


async def test_it_changes_nothing_and_leaves_no_setting_behind(patient: Bed) -> None:
    async with examination(patient.dsn) as look:
        with pytest.raises(TaskrunnerError, match="read-only"):
            await look.ask("drain_session", id=uuid4())
        assert [row.setting for row in await look.ask("doctor_settings", names=["default_transaction_read_only"])] == ["off"]
        # As the next client of a pooler would find it.
        assert await (await look._connection.execute("show statement_timeout")).fetchone() == ("0",)


def test_the_indexes_that_must_be_there_are_those_of_the_schema() -> None:
    assert {"tasks_live_due", "tasks_live_unique", "tasks_finished_bad", "bulk_operations_running"} <= indexes_of_schema()
