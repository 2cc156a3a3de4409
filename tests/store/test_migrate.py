import asyncio
import os
import sys
from pathlib import Path

import psycopg
import pytest

import taskrunner
from taskrunner.domain.errors import ConfigurationError, Unavailable
from taskrunner.store import migrate
from taskrunner.store.goose import parse

Row = tuple[object, ...]

UP = """
import asyncio, sys
from pathlib import Path
from taskrunner.store import migrate
print("applied", len(asyncio.run(migrate.up(sys.argv[1], Path(sys.argv[2])))))
"""


async def rows(dsn: str, query: str) -> list[Row]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(query.encode())
        return await cursor.fetchall() if cursor.description else []


async def seen(dsn: str, query: str) -> None:
    """Wait until ``query`` finds something."""
    async with asyncio.timeout(20):
        while True:
            if await rows(dsn, query):
                return
            await asyncio.sleep(0.02)


async def runner(dsn: str, directory: Path) -> asyncio.subprocess.Process:
    source = Path(taskrunner.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(source)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", UP, dsn, str(directory), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )


def write(directory: Path, name: str, up: str, down: str = "", head: str = "") -> None:
    (directory / name).write_text(f"{head}-- +goose Up\n{up}\n-- +goose Down\n{down}\n")


# ── reading ──


@pytest.mark.parametrize(
    ("text", "up", "down"),
    [
        ("-- +goose Up\nselect 1;\n-- +goose Down\nselect 2;\n", [(2, "select 1;")], [(4, "select 2;")]),
        ("-- an essay\n\n-- +goose Up\n\n-- why\nselect\n  1; -- said ;\n", [(6, "select\n  1; -- said ;")], []),
        ("-- +goose Up\nselect ';' -- no end;\n, 2;\nselect 3;", [(2, "select ';' -- no end;\n, 2;"), (4, "select 3;")], []),
        (
            "-- +goose Up\n-- +goose StatementBegin\ndo $$ begin\n  null;\nend $$;\n-- +goose StatementEnd\n",
            [(3, "do $$ begin\n  null;\nend $$;")],
            [],
        ),
        ("--+goose Up\r\nselect 1;\r\n", [(2, "select 1;")], []),
        ("-- +goose Up\n-- +goose Down\n", [], []),
    ],
)
def test_reads_what_goose_reads(text: str, up: list[tuple[int, str]], down: list[tuple[int, str]]) -> None:
    script = parse(1, "00001_a.sql", text)

    assert [(statement.line, statement.text) for statement in script.up] == up
    assert [(statement.line, statement.text) for statement in script.down] == down
    assert script.transaction


def test_reads_no_transaction() -> None:
    assert not parse(1, "00001_a.sql", "-- +goose NO TRANSACTION\n-- +goose Up\nvacuum;\n").transaction


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: '-- +goose Up' is missing"),
        ("select 1;\n-- +goose Up\n", "line 1: the file must begin with '-- +goose Up'"),
        ("-- +goose Down\n", "line 1: '-- +goose Down' is not understood here"),
        ("-- +goose Up\n-- +goose Up\n", "line 2: '-- +goose Up' is not understood here"),
        ("-- +goose up\n", "line 1: '-- +goose up' is not understood here"),
        ("-- +goose Up\n-- +goose StatementEnd\n", "line 2: '-- +goose StatementEnd' is not understood here"),
        ("-- +goose Up\n-- +goose StatementBegin\nselect 1;\n", "line 4: '-- +goose StatementEnd' is missing"),
        ("-- +goose Up\nselect 1;\n\nselect 2\n-- +goose Down\n", "line 4: this statement has no semicolon at the end of a line"),
        ("-- +goose Up\nselect 1", "line 2: this statement has no semicolon at the end of a line"),
        ("-- +goose Up\n-- +goose ENVSUBST ON\n", "line 2: '-- +goose ENVSUBST ON' is not understood here"),
    ],
)
def test_refuses_what_goose_would_not_understand(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(1, "00001_a.sql", text)

    assert str(caught.value) == f"00001_a.sql, {complaint}"


# ── forth and back ──


async def test_up_status_check_down(empty_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "00001_a.sql", "create table a (i int);", "drop table a;")
    write(tmp_path, "00002_b.sql", "create table b (i int);\ninsert into b values (7);", "drop table b;")

    assert [str(one) for one in await migrate.status(empty_dsn, tmp_path)] == ["00001_a.sql  pending", "00002_b.sql  pending"]
    assert [one.name for one in await migrate.up(empty_dsn, tmp_path)] == ["00001_a.sql", "00002_b.sql"]
    assert await migrate.up(empty_dsn, tmp_path) == []
    assert await migrate.check(empty_dsn, tmp_path) == []
    assert await rows(empty_dsn, "select i from b") == [(7,)]
    assert all(one.applied_at for one in await migrate.status(empty_dsn, tmp_path))

    assert [one.name for one in await migrate.down(empty_dsn, tmp_path)] == ["00002_b.sql"]
    assert [one.name for one in await migrate.check(empty_dsn, tmp_path)] == ["00002_b.sql"]
    assert await rows(empty_dsn, "select to_regclass('a') is null, to_regclass('b') is null") == [(False, True)]
    assert [one.name for one in await migrate.down(empty_dsn, tmp_path)] == ["00001_a.sql"]
    assert await migrate.down(empty_dsn, tmp_path) == []


async def test_the_table_of_versions_is_goose_s_own(empty_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "00003_a.sql", "select 1;")
    await migrate.up(empty_dsn, tmp_path)

    columns = "select column_name, data_type, is_nullable from information_schema.columns where table_name = 'goose_db_version' order by 1"
    assert await rows(empty_dsn, columns) == [
        ("id", "integer", "NO"),
        ("is_applied", "boolean", "NO"),
        ("tstamp", "timestamp without time zone", "NO"),
        ("version_id", "bigint", "NO"),
    ]
    assert await rows(empty_dsn, "select id, version_id, is_applied from goose_db_version order by id") == [(1, 0, True), (2, 3, True)]

    # What Goose's older versions left for a file that was taken back.
    await rows(empty_dsn, "insert into goose_db_version (version_id, is_applied) values (3, false)")
    assert [one.version for one in await migrate.check(empty_dsn, tmp_path)] == [3]


async def test_our_own_schema_goes_forth_and_back(empty_dsn: str) -> None:
    everything = "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relname !~ '^goose'"
    functions = "select count(*) from pg_proc where pronamespace = 'public'::regnamespace"

    applied = await migrate.up(empty_dsn)
    assert applied
    assert applied[-1].version == migrate.newest_version()
    first = await rows(empty_dsn, everything)
    while await migrate.down(empty_dsn):
        pass
    assert await rows(empty_dsn, everything) == [(0,)]
    assert await rows(empty_dsn, functions) == [(0,)]
    await migrate.up(empty_dsn)
    assert await rows(empty_dsn, everything) == first


# ── several at once, and cut off ──


async def test_four_processes_at_once_apply_each_file_once(empty_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "00001_a.sql", "create table a as select i from generate_series(1, 50000) i;")
    write(tmp_path, "00002_i.sql", "create index concurrently a_i on a (i);", head="-- +goose NO TRANSACTION\n")
    write(tmp_path, "00003_b.sql", "create table b (i int);")

    processes = [await runner(empty_dsn, tmp_path) for _ in range(4)]
    said = [(await process.communicate())[0].decode().splitlines()[-1] for process in processes]

    assert sorted(said) == ["applied 0", "applied 0", "applied 0", "applied 3"]
    assert await rows(empty_dsn, "select indisvalid from pg_index where indexrelid = 'a_i'::regclass") == [(True,)]


@pytest.mark.parametrize("head", ["", "-- +goose NO TRANSACTION\n"])
async def test_after_kill_9_in_the_middle_of_a_file_the_next_runner_finishes_it(empty_dsn: str, tmp_path: Path, head: str) -> None:
    sleeps = "do $$ begin if to_regclass('slow') is not null then perform pg_sleep(50); end if; end $$;"
    write(tmp_path, "00001_a.sql", f"create table if not exists a (i int);\n{sleeps}\ncreate table b (i int);", head=head)
    await rows(empty_dsn, "create table slow ()")

    process = await runner(empty_dsn, tmp_path)
    await seen(empty_dsn, "select pid from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'")
    process.kill()
    await process.communicate()
    await rows(empty_dsn, "drop table slow")

    assert [one.version for one in await migrate.up(empty_dsn, tmp_path)] == [1]
    assert await rows(empty_dsn, "select to_regclass('a') is null, to_regclass('b') is null") == [(False, False)]


async def test_an_index_that_was_cut_off_is_named_with_its_remedy(empty_dsn: str, tmp_path: Path) -> None:
    await rows(empty_dsn, "create table a as select 1 as i from generate_series(1, 2)")
    write(tmp_path, "00001_i.sql", "create unique index concurrently if not exists a_i on a (i);", head="-- +goose NO TRANSACTION\n")
    with pytest.raises(ConfigurationError, match=r"00001_i\.sql, line 3: could not create unique index"):
        await migrate.up(empty_dsn, tmp_path)
    await rows(empty_dsn, "delete from a where ctid = '(0,1)'")

    with pytest.raises(ConfigurationError, match="DROP INDEX CONCURRENTLY a_i, then migrate up again"):
        await migrate.up(empty_dsn, tmp_path)
    assert [one.version for one in await migrate.check(empty_dsn, tmp_path)] == [1]

    await rows(empty_dsn, "drop index concurrently a_i")
    assert [one.version for one in await migrate.up(empty_dsn, tmp_path)] == [1]


async def test_a_locked_table_is_waited_for_in_turns(empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "50ms")
    await rows(empty_dsn, "create table a (i int)")
    write(tmp_path, "00001_a.sql", "create table b (i int);\nalter table a add j int;")
    refused = "select datname from pg_stat_database where datname = current_database() and xact_rollback > 0"

    async with await psycopg.AsyncConnection.connect(empty_dsn) as other:
        await other.execute("lock table a in access share mode")
        async with asyncio.TaskGroup() as group:
            running = group.create_task(migrate.up(empty_dsn, tmp_path))
            await seen(empty_dsn, refused)
            assert not running.done()
            await other.rollback()
    assert [one.version for one in running.result()] == [1]

    monkeypatch.setattr(migrate, "LOCK_TRIES", 2)
    write(tmp_path, "00002_a.sql", "alter table a add k int;")
    async with await psycopg.AsyncConnection.connect(empty_dsn) as other:
        await other.execute("lock table a in access share mode")
        with pytest.raises(Unavailable, match=r"00002_a\.sql found a table locked 2 times"):
            await migrate.up(empty_dsn, tmp_path)


# ── refusals ──


async def test_a_newer_schema_is_refused(empty_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "00001_a.sql", "select 1;")
    write(tmp_path, "00002_b.sql", "select 2;")
    await migrate.up(empty_dsn, tmp_path)
    (tmp_path / "00002_b.sql").unlink()

    for refusing in (migrate.up, migrate.down, migrate.check):
        with pytest.raises(ConfigurationError, match="the schema has version 2 and this taskrunner knows 1"):
            await refusing(empty_dsn, tmp_path)
    assert [one.name for one in await migrate.status(empty_dsn, tmp_path)] == ["00001_a.sql", "00002 (no file)"]


async def test_a_broken_file_names_itself_and_its_line_and_changes_nothing(empty_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "00001_a.sql", "create table a (i int);\n\ncreate table b (\n  i int,\n  j nonsense);")

    with pytest.raises(ConfigurationError) as caught:
        await migrate.up(empty_dsn, tmp_path)

    assert str(caught.value) == '00001_a.sql, line 6: type "nonsense" does not exist'
    assert await rows(empty_dsn, "select to_regclass('a') is null") == [(True,)]


async def test_a_constraint_that_fails_at_commit_names_the_file(empty_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "00001_a.sql", "create table a (i int unique deferrable initially deferred);\ninsert into a values (1), (1);")

    with pytest.raises(ConfigurationError, match=r"00001_a\.sql.*duplicate key"):
        await migrate.up(empty_dsn, tmp_path)


async def test_two_files_with_one_number_are_refused(empty_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, "00001_a.sql", "select 1;")
    write(tmp_path, "1_b.sql", "select 1;")

    with pytest.raises(ConfigurationError, match="have the same number"):
        await migrate.up(empty_dsn, tmp_path)


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="PostgreSQL does not answer"):
        await migrate.check(f"host={tmp_path} dbname=nowhere", tmp_path)


# ── new files ──


def test_new_writes_the_next_file(tmp_path: Path) -> None:
    first = migrate.new(tmp_path, "Add a  table: x!")
    second = migrate.new(tmp_path, "more")

    assert [first.name, second.name] == ["00001_add_a_table_x.sql", "00002_more.sql"]
    assert parse(1, first.name, first.read_text()).up == []
    assert migrate.newest_version(tmp_path) == 2


def test_new_says_where_files_belong(tmp_path: Path) -> None:
    for folder, complaint in (
        (tmp_path / "missing", "is no folder that can be written"),
        (Path(taskrunner.__file__).parent / "store" / "sql", "belongs to an installed taskrunner"),
    ):
        with pytest.raises(ConfigurationError, match=complaint):
            migrate.new(folder, "x")
    with pytest.raises(ConfigurationError, match="needs a letter or a digit"):
        migrate.new(tmp_path, "–")
