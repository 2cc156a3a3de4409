import asyncio
import os
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from store.housing import (
    FAST,
    ask,
    dsn_of,
    living,
    needs_linux,
    only,
    postmaster,
    until,
    user,
    watcher_of,
)

from taskrunner.domain.errors import ConfigurationError
from taskrunner.store.embedded import embedded_postgres

# ── it starts, it stops, it keeps what it was given ──


async def test_starts_afresh_and_again_and_leaves_nothing_running(tmp_path: Path, bin_folder: Path | None) -> None:
    (tmp_path / "data" / "pgdata.new").mkdir(parents=True)
    (tmp_path / "data" / "pgdata.new" / "PG_VERSION").write_text("the rest of an initdb that was killed")
    moments = [time.monotonic()]

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.01)
            moments.append(time.monotonic())

    ticking = asyncio.ensure_future(tick())
    async with embedded_postgres(tmp_path / "data", options={"work_mem": "5MB"}, binaries=bin_folder) as server:
        ticking.cancel()
        assert await ask(server.dsn, "select current_database(), current_user::text") == ("taskrunner", "postgres")
        assert await ask(server.dsn, "select pg_encoding_to_char(encoding), datcollate from pg_database where datname = 'taskrunner'") == (
            "UTF8",
            "C.UTF-8",
        )
        for setting, value in {
            "fsync": "on",
            "synchronous_commit": "on",
            "autovacuum": "on",
            "max_connections": "100",
            "work_mem": "5MB",
        }.items():
            assert await ask(server.dsn, f"show {setting}") == value
        pasted = await asyncio.to_thread(
            subprocess.run, [*shlex.split(server.psql), "-Atc", "create table kept as select 42 as i"], check=False
        )
        assert pasted.returncode == 0
        assert living(server.data_dir)
    assert not living(tmp_path / "data")
    gaps = [after - before for before, after in pairwise(moments)]
    assert max(gaps) < sum(gaps) / 2, "starting must not block the event loop"

    async with embedded_postgres(tmp_path / "data", binaries=bin_folder) as server:
        assert await ask(server.dsn, "select i from kept") == 42
    assert not living(tmp_path / "data")


async def test_a_long_path_gets_a_short_name(
    tmp_path: Path, public_dir: Path, bin_folder: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(public_dir))
    data_dir = tmp_path / ("long" * 30) / "with space, comma"

    async with embedded_postgres(data_dir, options=FAST, binaries=bin_folder) as server:
        assert await ask(server.dsn, "select 1") == 1
        link = only(public_dir)
    assert not living(data_dir)

    link.unlink()
    link.symlink_to(tmp_path)  # a stranger's server would wait there
    with pytest.raises(ConfigurationError, match="does not lead to"):
        async with embedded_postgres(data_dir, options=FAST, binaries=bin_folder):
            pass
    await until(lambda: not living(data_dir))


# ── several processes, and every way to die ──


async def test_processes_share_a_server_and_the_last_one_takes_it_along(tmp_path: Path, bin_folder: Path | None) -> None:
    async with user(tmp_path, bin_folder) as starter, user(tmp_path, bin_folder) as second:
        dsn = await dsn_of(starter)
        server = postmaster(tmp_path)
        assert await dsn_of(second) == dsn
        async with embedded_postgres(tmp_path, binaries=bin_folder) as third:
            assert third.dsn == dsn
        starter.kill()
        await starter.wait()
        assert await ask(dsn, "select 1") == 1
        assert postmaster(tmp_path) == server

        second.kill()
        await until(lambda: not living(tmp_path))


async def test_four_processes_at_once_start_one_server(tmp_path: Path, bin_folder: Path | None) -> None:
    async with (
        user(tmp_path, bin_folder) as a,
        user(tmp_path, bin_folder) as b,
        user(tmp_path, bin_folder) as c,
        user(tmp_path, bin_folder) as d,
    ):
        dsns = {await dsn_of(process) for process in (a, b, c, d)}
        assert len(dsns) == 1
        assert await ask(dsns.pop(), "select 1") == 1
        assert (tmp_path / "postgres.log").read_text().count("starting PostgreSQL") == 1
        for process in (a, b, c, d):
            assert process.stdin
            process.stdin.close()
        assert [await process.wait() for process in (a, b, c, d)] == [0, 0, 0, 0]
    await until(lambda: not living(tmp_path))


async def test_users_that_come_while_it_stops_get_the_next_server(tmp_path: Path, bin_folder: Path | None) -> None:
    for _ in range(3):
        async with user(tmp_path, bin_folder) as leaving:
            dsn = await dsn_of(leaving)
            leaving.kill()
            async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder) as server:
                assert await ask(dsn, "select 1") == 1
                assert await ask(server.dsn, "select 1") == 1
    await until(lambda: not living(tmp_path))


async def test_a_killed_server_recovers_at_the_next_start(tmp_path: Path, bin_folder: Path | None) -> None:
    async with embedded_postgres(tmp_path, binaries=bin_folder) as server:
        await ask(server.dsn, "create table kept as select 42 as i")
        async with await psycopg.AsyncConnection.connect(server.dsn, autocommit=True) as busy:
            until_later = "do $$ begin while clock_timestamp() < statement_timestamp() + interval '1 s' loop end loop; end $$"
            async with asyncio.TaskGroup() as group:
                group.create_task(quietly(busy, until_later))
                await until(lambda: any("DO" in " ".join(process.cmdline()) for process in living(tmp_path)))
                os.kill(postmaster(tmp_path), signal.SIGKILL)

                async with user(tmp_path, bin_folder) as another:
                    assert await ask(await dsn_of(another), "select i from kept") == 42
                assert await ask(server.dsn, "select i from kept") == 42
    await until(lambda: not living(tmp_path))


async def quietly(connection: psycopg.AsyncConnection, query: str) -> None:
    with suppress(psycopg.OperationalError):
        await connection.execute(query.encode())


def runs(process: psutil.Process) -> bool:
    """Whether it is neither gone nor a zombie."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@needs_linux
async def test_the_server_does_not_outlive_its_watcher(tmp_path: Path, bin_folder: Path | None) -> None:
    async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder):
        os.kill(watcher_of(tmp_path), signal.SIGKILL)
        await until(lambda: not any(runs(process) for process in living(tmp_path)))

        async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder) as again:
            assert await ask(again.dsn, "select 1") == 1
    await until(lambda: not living(tmp_path))


async def test_signals_of_the_terminal_do_not_reach_it(tmp_path: Path, bin_folder: Path | None) -> None:
    async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder) as server:
        watcher = watcher_of(tmp_path)
        assert os.getsid(watcher) == watcher
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(watcher, name)
        assert await ask(server.dsn, "select 1") == 1


@needs_linux
async def test_a_stale_file_that_names_a_stranger_s_process_is_seen_through(tmp_path: Path, bin_folder: Path | None) -> None:
    async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder):
        left = (tmp_path / "pgdata" / "postmaster.pid").read_text()
    owner = (tmp_path / "pgdata").stat()
    account: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    stranger = await asyncio.create_subprocess_exec("sleep", "60", cwd="/", **account)
    try:
        (tmp_path / "pgdata" / "postmaster.pid").write_text(left.replace(left.split("\n", 1)[0], str(stranger.pid), 1))
        async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder) as server:
            assert await ask(server.dsn, "select 1") == 1
    finally:
        stranger.kill()
        await stranger.wait()
