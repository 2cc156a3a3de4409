"""A PostgreSQL cluster in a folder: made, started and looked at. Who may do so, and when, is the affair of ``embedded.py``."""

import asyncio
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from taskrunner.domain.errors import ConfigurationError
from taskrunner.store import watcher
from taskrunner.store.binaries import reachable, server_version

DATABASE = "taskrunner"
ACCOUNTS = ("postgres", "taskrunner", "nobody")  # who runs the server when we are root
LOG_LIMIT = 16 * 1024 * 1024  # bytes; looked at when the server starts


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster in ``data_dir``, with the settings and the binaries that its server is started with."""

    data_dir: Path
    options: Mapping[str, str]
    binaries: Path

    @property
    def pgdata(self) -> Path:
        """Where PostgreSQL's own files are, and its socket."""
        return self.data_dir / "pgdata"

    @property
    def users(self) -> Path:
        """The lock file that everybody holds who uses the server."""
        return self.data_dir / "users.lock"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.data_dir / "postgres.log"

    def socket_dir(self) -> Path:
        """A name for ``pgdata`` that is short enough: the path of a Unix socket has room for some 107 bytes."""
        if len(os.fsencode(self.pgdata / ".s.PGSQL.5432")) <= 100:
            return self.pgdata
        name = hashlib.sha256(bytes(self.pgdata)).hexdigest()[:16]
        link = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"taskrunner-{name}")
        with suppress(FileExistsError):
            link.symlink_to(self.pgdata)
        if link.lstat().st_uid != os.geteuid() or link.readlink() != self.pgdata:
            raise ConfigurationError(f"{link} does not lead to {self.pgdata}: remove it, or set TASKRUNNER_DATA_DIR to a shorter path")
        return link

    def dsn(self, database: str = DATABASE) -> str:
        """Connection string for psycopg and libpq."""
        return make_conninfo(host=str(self.socket_dir()), port=5432, user="postgres", dbname=database)

    def server(self) -> int | None:
        """Process id of the running server. A stale file may name a stranger's process; ours lives in ``pgdata``."""
        try:
            pid = int((self.pgdata / "postmaster.pid").read_text().partition("\n")[0])
            if sys.platform != "linux":
                os.kill(pid, 0)
                return pid
            try:
                ours = Path(f"/proc/{pid}/cwd").samefile(self.pgdata)
            except PermissionError:  # root in a container may not look there
                ours = Path(f"/proc/{pid}/comm").read_text() == "postgres\n"
        except (OSError, ValueError):
            return None
        return pid if ours else None

    async def serve(self) -> int | None:
        """Wait until the server answers, and start it where there is none. Only one process at a time may do this.

        Returns the process id of the watcher when it is our child. Raises ConfigurationError when the server ends instead.
        """
        child, logged = None, 0
        while True:
            server = self.server()
            if server and self._ready() and await self._answers():
                return child
            if not server and child is None:
                logged = self._rotate_log()
                child = await asyncio.to_thread(self._start)
            if child and _ended(child):
                child, said = None, self._said(logged)
                if not any("still in use" in line for line in said):  # a killed server's last backends may need a moment more
                    raise ConfigurationError(f"the embedded PostgreSQL in {self.data_dir} did not start: {said[-1]}; see {self.log}")
            await asyncio.sleep(0.01)

    async def stopped(self, server: int | None, child: int | None) -> None:
        """Wait until ``server`` is gone, and its watcher ``child``."""
        while True:
            if (server is None or self.server() != server) and (child is None or _ended(child)):
                return
            await asyncio.sleep(0.01)

    def _ready(self) -> bool:
        with suppress(OSError):
            return (self.pgdata / "postmaster.pid").read_text().endswith("ready   \n")
        return False

    async def _answers(self) -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(self.dsn("postgres"), autocommit=True, connect_timeout=5) as connection:
                found = await connection.execute("select from pg_database where datname = %s", [DATABASE])
                if not found.rowcount:
                    await connection.execute(f"create database {DATABASE}")
        except psycopg.OperationalError:  # it recovers, or stops
            return False
        return True

    def _start(self) -> int:
        """Start the server under a watcher, and return the watcher's process id."""
        account = self._account()
        binaries = reachable(self.binaries, account)
        if not self.pgdata.exists() or not any(self.pgdata.iterdir()):
            self._make(binaries, account)
        self._check_version(server_version(binaries))
        (self.pgdata / "postmaster.pid").unlink(missing_ok=True)  # of a killed server: no process lives here
        uid, gid = account or (os.getuid(), os.getgid())
        settings = [word for name, value in self.options.items() for word in ("-c", f"{name}={value}")]
        command = [str(binaries / "postgres"), *settings, "-p", "5432", "-k", "."]
        words = ["-I", "-S", watcher.__file__, str(self.users), str(self.pgdata), str(uid), str(gid), *command]
        files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        files += [(os.POSIX_SPAWN_OPEN, fd, str(self.log), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for fd in (1, 2)]
        return os.posix_spawn(sys.executable, [sys.executable, *words], os.environ, file_actions=files)

    def _account(self) -> watcher.Account | None:
        if os.geteuid() != 0:
            return None
        if self.pgdata.exists() and self.pgdata.stat().st_uid != 0:
            return self.pgdata.stat().st_uid, self.pgdata.stat().st_gid
        for name in ACCOUNTS:
            with suppress(KeyError):
                return pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid
        raise ConfigurationError(f"PostgreSQL refuses to be root and no account {' or '.join(ACCOUNTS)} exists: create one, or set DB_DSN")

    def _make(self, binaries: Path, account: watcher.Account | None) -> None:
        """Make the cluster beside its place and move it there, so that a killed ``initdb`` leaves nothing half done."""
        fresh = self.data_dir / "pgdata.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if account:
            os.chown(fresh, *account)
        command = [str(binaries / "initdb"), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        if self.options.get("fsync") == "off":
            command.append("--no-sync")
        process = watcher.spawn(command, str(fresh), account, subprocess.PIPE)
        output, _ = process.communicate()
        if process.returncode:
            raise ConfigurationError(f"initdb could not make the embedded PostgreSQL in {self.data_dir}: {output.decode().strip()}")
        fresh.rename(self.pgdata)
        folder = os.open(self.data_dir, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _check_version(self, version: str) -> None:
        try:
            made_by = (self.pgdata / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise ConfigurationError(f"{self.pgdata} is no PostgreSQL cluster (PG_VERSION is missing): move it away") from None
        if version.partition(".")[0] != made_by:
            raise ConfigurationError(
                f"{self.pgdata} was made by PostgreSQL {made_by}, and this is {version}: "
                f"dump it with {made_by} and load it into a new one, or set TASKRUNNER_DATA_DIR to a new folder"
            )

    def _rotate_log(self) -> int:
        with suppress(FileNotFoundError):
            if self.log.stat().st_size < LOG_LIMIT:
                return self.log.stat().st_size
            self.log.replace(self.log.with_suffix(".log.1"))
        return 0

    def _said(self, logged: int) -> list[str]:
        """The complaints after byte ``logged`` of the log, or else all of it."""
        lines = self.log.read_bytes()[logged:].decode(errors="replace").splitlines()
        fatal = [match[1] for line in lines if (match := re.search(r"(?:FATAL|PANIC): +(.+)", line))]
        return fatal or lines or ["it said nothing"]


def _ended(child: int) -> bool:
    try:
        return os.waitpid(child, os.WNOHANG)[0] == child
    except ChildProcessError:
        return True
