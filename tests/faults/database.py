"""A PostgreSQL that may be killed, and a trigger that writes down every change of a task."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import psycopg
from faults.processes import end_with_us
from faults.waiting import until

from taskrunner.store import watcher
from taskrunner.store.binaries import find_binaries, reachable
from taskrunner.store.cluster import Cluster
from taskrunner.store.embedded import OPTIONS

# A crash of PostgreSQL loses nothing that it has handed to the kernel: without fsync only a crash of the machine would.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "200", "listen_addresses": "127.0.0.1"}

HISTORY = """
create table history (
  n bigint generated always as identity primary key, at timestamptz not null default clock_timestamp(),
  leaf text not null, op text not null, id uuid not null, epoch bigint not null, attempt int not null, status text not null, session uuid);
create function note_history() returns trigger language plpgsql security definer set search_path = public as $$
declare r record;
begin
  if tg_op = 'DELETE' then r := old; else r := new; end if;
  insert into history (leaf, op, id, epoch, attempt, status, session)
  values (tg_argv[0], tg_op, r.id, r.epoch, r.attempt, r.status, r.session);
  return null;
end $$;
create trigger note after insert or update or delete on tasks_live for each row execute function note_history('live');
create trigger note after insert or update or delete on tasks_finished for each row execute function note_history('finished');
"""


class Server:
    """PostgreSQL on a TCP port, as a child of ours: no watcher restarts or stops it."""

    def __init__(
        self,
        folder: Path,
        port: int,
        binaries: Path | None,
        *,
        options: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._cluster = Cluster(folder, {**OPTIONS, **FAST, **(options or {})}, binaries or find_binaries())
        self._environment = environment or {}
        self._account = self._cluster._account()
        self._binaries = reachable(self._cluster.binaries, self._account)
        self.port = port
        self._popen: subprocess.Popen[bytes] | None = None
        self.dsn = self.at(port)

    def at(self, port: int, database: str = "taskrunner", user: str = "postgres") -> str:
        """The way to it through that port. ``owner`` owns the database and may do nothing else."""
        return f"postgres://{user}@127.0.0.1:{port}/{database}?sslmode=disable"

    async def start(self) -> None:
        """Start it and wait until it answers; a cluster that is not there is made."""
        if not self._cluster.pgdata.exists():
            self._cluster._make(self._binaries, self._account)
        settings = [word for name, value in self._cluster.options.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), *settings, "-p", str(self.port), "-k", "."]
        with self._cluster.log.open("ab") as log:
            self._popen = watcher.spawn(command, str(self._cluster.pgdata), self._account, log, self._prepare)
        await until(self._answers, within=30, what=f"PostgreSQL, see {self._cluster.log}")

    @property
    def alive(self) -> bool:
        """Whether its postmaster runs."""
        return self._popen is not None and self._popen.poll() is None

    def _prepare(self) -> None:
        end_with_us()
        os.environ.update(self._environment)  # in the child

    async def standby(self, folder: Path, port: int) -> "Server":
        """A copy that follows this one, running. Beside ``postgres`` it needs ``pg_basebackup``."""
        other = Server(folder, port, self._cluster.binaries, options=self._cluster.options)
        other._cluster.pgdata.mkdir(mode=0o700)
        if other._account:
            os.chown(other._cluster.pgdata, *other._account)
        words = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "--write-recovery-conf", "--checkpoint=fast"]
        with other._cluster.log.open("ab") as log:
            copy = watcher.spawn([str(other._binaries / "pg_basebackup"), *words], str(other._cluster.pgdata), other._account, log)
        await until(lambda: copy.poll() is not None, within=60, what="the copy")
        assert copy.returncode == 0, other._cluster.log.read_text()
        await other.start()
        return other

    async def _answers(self) -> bool:
        assert self._popen is not None
        assert self._popen.poll() is None, self._cluster.log.read_text()
        try:
            async with await psycopg.AsyncConnection.connect(self.at(self.port, "postgres"), autocommit=True) as connection:
                found = await connection.execute("select from pg_database where datname = 'taskrunner' or pg_is_in_recovery()")
                if not found.rowcount:
                    await connection.execute("create role owner login")
                    await connection.execute("create database taskrunner owner owner")
        except psycopg.OperationalError:
            return False
        return True

    async def crash(self) -> None:
        """What ``pg_ctl stop -m immediate`` does: no checkpoint, no good-bye; the next start recovers."""
        await self._end(signal.SIGQUIT)

    async def stop(self) -> None:
        """What ``pg_ctl stop -m fast`` does."""
        await self._end(signal.SIGINT)

    async def kill(self) -> None:
        """kill -9: what a machine that burns does."""
        await self._end(signal.SIGKILL)

    async def _end(self, number: signal.Signals) -> None:
        if self._popen is not None:
            self._popen.send_signal(number)  # nothing, where it has ended by itself
            await until(lambda: self._popen is None or self._popen.poll() is not None, within=20, what="the end of PostgreSQL")
            self._popen = None

    def discard(self) -> None:
        """Kill it if it still runs, and remove its files."""
        if self._popen is not None:
            self._popen.send_signal(signal.SIGQUIT)
            self._popen.wait(20)
            self._popen = None
        shutil.rmtree(self._cluster.data_dir, ignore_errors=True)

    async def ask(self, query: str, parameters: Any = None) -> list[Any]:
        """The rows of a query, on a connection of its own."""
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(await psycopg.AsyncConnection.connect(self.dsn, autocommit=True))
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall() if cursor.description else []
