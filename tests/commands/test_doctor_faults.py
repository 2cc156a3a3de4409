"""Faults that a few statements plant: ``taskrunner doctor`` finds each, and nothing else."""

import re

import pytest
from commands.ward import DAY, DUE, LATER, Bed

from taskrunner.commands.doctor.finding import Severity

HELD = (
    "insert into tasks_live (task_type, payload, status, session, stream, attempt, timeout, updated_at, cancel_requested_at) "
    "select 'x', '{}', 'RUNNING', id, 1, 1, 5, now() - interval '1 hour', null from sessions"
)
DEAD = "insert into sessions (id, status, lease_until, dead_at) select gen_random_uuid(), 'DEAD', now(), now() - interval '1 hour'"
MINE = "slot_name = 'idle_' || substr(current_database(), 5)"
# What is planted, where it is found, how bad it is, and what is said.
FAULTS: dict[str, tuple[list[str], str, Severity, str]] = {
    "commits that do not wait": (
        ["alter database {db} set synchronous_commit = off"],
        "durability",
        Severity.CRITICAL,
        "synchronous_commit",
    ),
    "nothing may be written": (
        ["alter database {db} set default_transaction_read_only = on"],
        "server",
        Severity.CRITICAL,
        "nothing can be",
    ),
    "hardly a connection left": (["alter database {db} connection limit 1"], "connections", Severity.CRITICAL, "of the 1 connections"),
    "a table without autovacuum": (
        ["alter table tasks_live set (autovacuum_enabled = off)"],
        "autovacuum",
        Severity.CRITICAL,
        "tasks_live",
    ),
    "an index is gone": (["drop index tasks_live_suspect"], "indexes", Severity.CRITICAL, "missing: tasks_live_suspect"),
    "a file of the schema too few": (
        ["delete from goose_db_version where version_id = (select max(version_id) from goose_db_version)"],
        "schema",
        Severity.CRITICAL,
        "not applied",
    ),
    "a newer schema": (["insert into goose_db_version (version_id, is_applied) values (999, true)"], "schema", Severity.CRITICAL, "999"),
    "a default partition": (["create table rest partition of attempts default"], "days", Severity.CRITICAL, "rest is a default partition"),
    "a day that is not made": (
        ["do $$ begin execute 'drop table tasks_finished_' || {day1}; end $$"],
        "days",
        Severity.WARNING,
        "no leaf for",
    ),
    "a day that is not detached": (
        ["create table tasks_finished_20200101 partition of tasks_finished for values from ('2020-01-01Z') to ('2020-01-02Z')"],
        "days",
        Severity.WARNING,
        "older than TASKRUNNER_RETENTION",
    ),
    "a day that is not dropped": (
        ["create table attempts_20200101 (like attempts)"],
        "days",
        Severity.WARNING,
        "attempts_20200101 is detached",
    ),
    "tasks that nobody handles": ([DUE.format(type="y")], "backlog", Severity.WARNING, "no worker handles them"),
    "tasks that nobody claims": ([DUE.format(type="x")], "backlog", Severity.CRITICAL, "although workers have free slots"),
    "tasks without a place": (["update sessions set slots = 0", DUE.format(type="x")], "backlog", Severity.WARNING, "every slot is taken"),
    "a pause that was forgotten": (
        [DUE.format(type="x"), "insert into gates values ('queue', 'default', 'infinity')"],
        "paused",
        Severity.WARNING,
        "1 task is due in it",
    ),
    "a pause": (["insert into gates values ('type', 'x', 'infinity')"], "paused", Severity.NOTE, "the type x is paused"),
    "tasks of a dead worker": (
        [HELD, DEAD, "update tasks_live set session = (select id from sessions where status = 'DEAD')"],
        "held tasks",
        Severity.CRITICAL,
        "workers that are gone",
    ),
    "a handler that does not stop": ([HELD], "held tasks", Severity.CRITICAL, "longer than the timeout"),
    "a cancel that is not obeyed": (
        [HELD, "update tasks_live set cancel_requested_at = now() - interval '1 hour'"],
        "held tasks",
        Severity.CRITICAL,
        "do not obey",
    ),
    "a worker that is silent": (
        ["update sessions set beat_at = now() - interval '10 seconds'"],
        "workers",
        Severity.WARNING,
        "box:1 has been silent",
    ),
    "a drain without an end": (
        ["update sessions set drain_requested_at = now() - interval '1 hour'"],
        "workers",
        Severity.WARNING,
        "has been draining for 1 h",
    ),
    "no worker": (["delete from sessions"], "workers", Severity.WARNING, "no worker is connected"),
    "a slot that nobody reads": (
        ["select pg_create_physical_replication_slot('idle_' || substr(current_database(), 5), true)"],
        "replication",
        Severity.WARNING,
        "nobody uses the replication slot idle_",
    ),
    "dead rows": (
        [
            "alter table tasks_live set (autovacuum_vacuum_threshold = 10)",
            "update goose_db_version set tstamp = now() - interval '1 day'",
            LATER.format(100),
            "delete from tasks_live; select pg_stat_force_next_flush()",
        ],
        "dead rows",
        Severity.WARNING,
        "tasks_live has 100 dead rows",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_found_and_nothing_else(name: str, patient: Bed) -> None:
    statements, check, severity, words = FAULTS[name]
    (database,) = re.findall(r"dbname=(\w+)", patient.dsn)
    try:
        await patient.sql(*(text.replace("{db}", database).replace("{day1}", DAY.format(1)) for text in statements))
        found = await patient.found()
        assert [*found] == [check]
        assert (found[check].severity, words in found[check].what, bool(found[check].remedy)) == (severity, True, True), found
    finally:
        await patient.sql(
            "set default_transaction_read_only = off",
            f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where {MINE}",
        )
