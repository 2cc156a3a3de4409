"""Real databases for every test: one embedded server a run, and a fresh copy of a migrated database for each test that asks for one."""

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
from hypothesis import settings
from psycopg.conninfo import make_conninfo

from taskrunner.store import migrate
from taskrunner.store.embedded import Embedded, embedded_postgres

settings.register_profile("ours", deadline=None)  # how quick an example is, is the machine's business
settings.load_profile("ours")

# A test database may vanish with the machine: only its speed counts.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}
MEMORY, ROOM = Path("/dev/shm"), 6 << 30  # bytes
SERVER = "TASKRUNNER_TEST_SERVER"  # the folder of a server that others may share


def in_memory() -> Path | None:
    """Where files are in memory, if there is room: a database is 300 files, and each test makes one. A disk needs ten times as long."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM else None


def pytest_configure(config: pytest.Config) -> None:
    """Choose the folder of this run's server, for its workers, too. And hear Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background is deaf to it, with all that it starts
    if SERVER in os.environ or (memory := in_memory()) is None:
        return
    folder = Path(tempfile.mkdtemp(dir=memory, prefix="taskrunner-tests-"))
    folder.chmod(0o755)  # the server is an ordinary user's
    os.environ[SERVER] = str(folder)
    config.add_cleanup(lambda: os.environ.pop(SERVER))
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session")
def postgres_bin() -> Path | None:
    """PostgreSQL's programs: the wheel's (None), or those of TASKRUNNER_TEST_PG_BIN, such as /usr/lib/postgresql/15/bin."""
    folder = os.environ.get("TASKRUNNER_TEST_PG_BIN")
    return Path(folder) if folder else None


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> AsyncIterator[Embedded]:
    """The server of this run. The workers of pytest-xdist share one, as any processes with the same folder do."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = Path(os.environ.get(SERVER, folder))
    async with embedded_postgres(folder / "postgres", options=FAST, binaries=postgres_bin) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def template(postgres: Embedded) -> str:
    """Name of the database with our schema that the others are copied from. It is made once, by whoever comes first."""
    scripts = [file for file in migrate.schema_files().iterdir() if file.is_file()]
    text = "".join(file.name + file.read_text() for file in sorted(scripts, key=lambda file: file.name))
    name = f"template_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    async with _admin(postgres) as connection:
        await connection.execute("select pg_advisory_lock(1)")
        found = await connection.execute("select from pg_database where datname = %s", [name])
        if not found.rowcount:
            await connection.execute("drop database if exists unfinished with (force)")
            await connection.execute("create database unfinished")
            await migrate.up(make_conninfo(postgres.dsn, dbname="unfinished"))
            await connection.execute(f"alter database unfinished rename to {name}")
    return name


@pytest.fixture
async def dsn(postgres: Embedded, template: str) -> AsyncIterator[str]:
    """A fresh database with our schema, this test's alone."""
    async with _database(postgres, template) as fresh:
        yield fresh


@pytest.fixture
async def empty_dsn(postgres: Embedded) -> AsyncIterator[str]:
    """A fresh database with nothing in it, this test's alone."""
    async with _database(postgres, "template0") as fresh:
        yield fresh


@asynccontextmanager
async def _database(postgres: Embedded, template: str) -> AsyncIterator[str]:
    name = f"test_{uuid4().hex}"
    async with _admin(postgres) as connection:
        await connection.execute(f"create database {name} template {template}")
    yield make_conninfo(postgres.dsn, dbname=name)
    async with _admin(postgres) as connection:
        await connection.execute(f"drop database {name} with (force)")


@asynccontextmanager
async def _admin(postgres: Embedded) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as connection:
        yield connection
