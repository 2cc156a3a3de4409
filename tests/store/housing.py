"""Servers and their users as real processes: what the tests of the embedded PostgreSQL share."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

import taskrunner

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
