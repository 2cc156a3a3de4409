"""schema/roles/roles.sql: each role may do exactly what docs/security.md says, tried on a real PostgreSQL."""

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from taskrunner.domain.errors import ConfigurationError
from taskrunner.store import leaves, migrate
from taskrunner.store.embedded import Embedded

TOP = Path(__file__).parent.parent.parent
SCRIPT = (TOP / "schema" / "roles" / "roles.sql").read_text()
ROLES = ("migrator", "scheduler", "api", "enqueue", "readonly")
LETTERS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}
LEAF = re.compile(r"_\d{8}$")


TABLES = """
select c.relname, r.rolname, pg_get_userbyid(c.relowner) = r.rolname,
  array(select p from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
    where has_table_privilege(r.oid, c.oid, p)),
  array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0
    and has_column_privilege(r.oid, c.oid, a.attnum, 'UPDATE') and not has_table_privilege(r.oid, c.oid, 'UPDATE'))
from pg_class c, pg_roles r
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f') and r.rolname ~ '^taskrunner_'"""
FUNCTIONS = """
select p.proname, r.rolname, has_function_privilege(r.oid, p.oid, 'EXECUTE') from pg_proc p, pg_roles r
where p.pronamespace = 'public'::regnamespace and r.rolname ~ '^taskrunner_'"""


class Granted:
    """A database of ours with its roles, and connections as each of them."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def of(self, role: str) -> str:
        return make_conninfo(self.dsn, user=f"taskrunner_{role}")

    async def ask(self, text: str, *parameters: Any, role: str | None = None) -> list[Any]:
        dsn = self.dsn if role is None else self.of(role)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            cursor = await connection.execute(text.encode(), parameters or None)
            return await cursor.fetchall() if cursor.description else []


async def grant(postgres: Embedded, dsn: str) -> None:
    """Run the script, as psql does. Roles are the server's, so one test at a time."""
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as lock:
        await lock.execute("select pg_advisory_lock(48)")
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute(SCRIPT.encode())


@pytest.fixture
async def granted(postgres: Embedded, dsn: str) -> Granted:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await leaves.make(connection)
    await grant(postgres, dsn)
    return Granted(dsn)


def documented() -> dict[tuple[str, str], str]:
    """What the tables of the document say: the rights of a role on a thing, as letters, ``owns``, or ``calls``."""
    found = {}
    text = (TOP / "docs" / "security.md").read_text()
    for head, body in re.findall(r"(?m)^\| on \| (.+) \|\n\|[-|]+\|\n((?:\|.+\|\n)+)", text):
        roles = [name.strip() for name in head.split("|")]
        for row in body.splitlines():
            things, *cells = [cell.strip() for cell in row.strip("|").split("|")]
            for thing in re.findall(r"`(\w+)`", things):
                found |= {(thing, role): cell for role, cell in zip(roles, cells, strict=True)}
    return found


async def test_the_grants_are_those_of_the_document(granted: Granted) -> None:
    tables = await granted.ask(TABLES)
    functions = await granted.ask(FUNCTIONS)
    wanted, seen = documented(), set()
    for table, role, owns, rights, columns in tables:
        name = role.removeprefix("taskrunner_")
        if LEAF.search(table):
            assert owns == (name == "scheduler"), table
            assert owns or name == "migrator" or not rights, "a day is reached through its parent"
        elif name != "migrator":  # a member of scheduler, and so without walls of its own
            letters = "".join(letter for letter, right in LETTERS.items() if right in rights) + "".join(f", U of {c}" for c in columns)
            assert wanted[table, name].replace("`", "") == ("owns" if owns else letters or "–"), (table, name)
            assert owns or not set(rights) - set(LETTERS.values()), (table, name)
            seen.add((table, name))
    for function, role, may in functions:
        name = role.removeprefix("taskrunner_")
        if name != "migrator":
            assert wanted[function, name] == ("calls" if may else "–"), (function, name)
            seen.add((function, name))
    assert seen == wanted.keys(), "what the document names and the schema has not, or the other way round"


DDL = [
    "create table mine (n int)",
    "create function mine() returns int language sql as 'select 1'",
    "create schema mine",
    "alter table tasks add column mine int",
    "alter table tokens add column mine int",
    "drop table gates",
    "truncate sessions",
    "drop function taskrunner_uuidv7() cascade",
    "create index mine on tasks_live (queue)",
    "create role mine",
    "set role postgres",
]
# Who makes the days must be able to make tables; it can touch no other.
ALLOWED = {("scheduler", DDL[0]), ("scheduler", DDL[1])}


async def test_nobody_but_the_migrator_changes_the_schema(granted: Granted) -> None:
    for role in ("scheduler", "api", "enqueue", "readonly"):
        for statement in DDL:
            if (role, statement) not in ALLOWED:
                try:
                    await granted.ask(statement, role=role)
                except errors.InsufficientPrivilege:
                    continue
                pytest.fail(f"{role} could {statement}")


async def test_an_application_can_enqueue_and_do_nothing_else(granted: Granted) -> None:
    async with await psycopg.AsyncConnection.connect(granted.of("enqueue")) as connection:
        await connection.execute("create temp table tasks_live (like pg_class)")  # a table of the same name is not taken for ours
        ((task,),) = await (await connection.execute("select taskrunner_enqueue('x', '{\"n\": 1}', unique_key => 'k')")).fetchall()
        ((same,),) = await (await connection.execute("select taskrunner_enqueue('x', unique_key => 'k')")).fetchall()
        await connection.commit()
    assert task == same
    assert await granted.ask("select task_type, payload from tasks where id = %s", task) == [("x", {"n": 1})]
    for statement in (
        "select * from tasks",
        "select id from tasks_live",
        "insert into tasks_live (task_type, payload) values ('x', '{}')",
        "delete from tasks_live",
        f"select taskrunner_cancel('{task}')",
        "select * from tokens",
        "select hash from tokens",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            await granted.ask(statement, role="enqueue")


async def test_nobody_who_serves_can_give_himself_a_token(granted: Granted) -> None:
    await granted.ask("insert into tokens (id, name, hash, scopes) values ('0123456789ab', 'x', sha256('x'), '{read}')")
    for role in ("api", "scheduler", "readonly"):
        for statement in (
            "insert into tokens select * from tokens",
            "update tokens set scopes = '{admin}'",
            "update tokens set hash = sha256('y')",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                await granted.ask(statement, role=role)
    await granted.ask("update tokens set last_used_at = now()", role="api")
    for role in ("scheduler", "readonly"):
        with pytest.raises(errors.InsufficientPrivilege):
            await granted.ask("select hash from tokens", role=role)


async def test_days_that_the_scheduler_makes_later_are_everyones(granted: Granted) -> None:
    async with await psycopg.AsyncConnection.connect(granted.of("scheduler"), autocommit=True) as connection:
        await connection.execute("drop table " + leaves.leaf("tasks_finished", (await now(granted)).date()))
        await leaves.make(connection)
    await granted.ask("insert into tasks (task_type, payload, status, finished_at) values ('x', '{}', 'COMPLETED', now())")
    assert await granted.ask("select count(*) from tasks_finished", role="readonly") == [(1,)]
    assert await granted.ask("select taskrunner_summarize(now())", role="api")


async def now(granted: Granted) -> Any:
    return (await granted.ask("select now() at time zone 'UTC'"))[0][0]


async def test_an_upgrade_is_the_migrators_and_is_granted_by_running_the_script_again(
    granted: Granted, postgres: Embedded, tmp_path: Path
) -> None:
    for file in migrate.schema_files().iterdir():
        if file.name.endswith(".sql"):
            (tmp_path / file.name).write_text(file.read_text())
    change = "alter table tasks add column colour text;\nalter table tokens add column colour text;\ncreate table colours (n int);\n"
    (tmp_path / "00099_colours.sql").write_text(f"-- +goose Up\n{change}\n-- +goose Down\n")
    for role in ("scheduler", "api"):
        with pytest.raises(ConfigurationError, match=r"00099_colours\.sql.*must be owner of table tasks"):
            await migrate.up(granted.of(role), tmp_path)
        assert await migrate.up(granted.of(role)) == [], "where there is nothing to do, nothing is needed"
    assert [done.version for done in await migrate.up(granted.of("migrator"), tmp_path)] == [99]
    await grant(postgres, granted.dsn)
    await granted.ask("select colour from tasks", role="readonly")


async def test_an_owner_who_is_no_superuser_can_run_it(postgres: Embedded, dsn: str) -> None:
    owner = make_conninfo(dsn, user="landlord")
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as lock:
        await lock.execute("select pg_advisory_lock(48)")
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as admin:
            if not (await admin.execute("select from pg_roles where rolname = 'landlord'")).rowcount:
                await admin.execute("create role landlord login createrole")
            await admin.execute("grant pg_read_all_stats to landlord with admin option")
            members = "taskrunner_migrator, taskrunner_scheduler, taskrunner_api, taskrunner_enqueue, taskrunner_readonly"
            await admin.execute(SCRIPT.encode())
            await admin.execute(f"grant {members} to landlord with admin option".encode())
            await admin.execute(
                f"reassign owned by taskrunner_migrator, taskrunner_scheduler to landlord; drop owned by {members}".encode()
            )
            name = admin.info.dbname
            await admin.execute(f"alter database {name} owner to landlord; alter schema public owner to landlord".encode())
        async with await psycopg.AsyncConnection.connect(owner, autocommit=True) as connection:
            await connection.execute(SCRIPT.encode())
    assert await Granted(dsn).ask("select taskrunner_enqueue('x')", role="enqueue")


async def test_an_upgrade_leaves_the_door_its_rights(granted: Granted) -> None:
    """The function was replaced, which alone would have taken away what roles.sql had given it."""
    while (await migrate.down(granted.of("migrator")))[0].version > 5:
        pass
    await migrate.up(granted.of("migrator"))
    assert len(await granted.ask("select taskrunner_enqueue('t')", role="enqueue")) == 1
