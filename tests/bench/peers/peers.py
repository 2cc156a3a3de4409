"""The rivals that we are measured against, each in an environment of its own below ``.cache/bench``."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from rig import Rig, cost, once, percentiles, until

HERE = Path(__file__).parent
CACHE = HERE.parents[2] / ".cache" / "bench"


@dataclass(frozen=True)
class Peer:
    """How to run it, how many jobs it is given, and how to see what it has left."""

    name: str
    command: tuple[str, ...]
    jobs: int
    left: str


def graphile() -> Peer:
    """graphile-worker, the fastest PostgreSQL queue that we know. It deletes its jobs."""
    folder = CACHE / "graphile"
    if not (folder / "node_modules" / "graphile-worker").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        subprocess.run(["npm", "install", "--silent", "--no-fund", "graphile-worker@0.17", "pg@8"], cwd=folder, check=True)
    return Peer("graphile-worker", ("node", str(HERE / "graphile.mjs")), 200_000, "select count(*) from graphile_worker._private_jobs")


def pgqueuer() -> Peer:
    """pgqueuer. It moves its jobs to a log table."""
    python = _venv("pgqueuer", "pgqueuer[asyncpg]==1.6.*", "uvloop")
    return Peer("pgqueuer", (python, str(HERE / "pgqueuer_peer.py")), 100_000, "select count(*) from pgqueuer")


def procrastinate() -> Peer:
    """procrastinate, as configured here it deletes its jobs."""
    python = _venv("procrastinate", "procrastinate==3.10.*", "psycopg[binary,pool]", "uvloop")
    left = "select count(*) from procrastinate_jobs where status in ('todo', 'doing')"
    return Peer("procrastinate", (python, str(HERE / "procrastinate_peer.py")), 5_000, left)


def _venv(name: str, *packages: str) -> str:
    folder = CACHE / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
        (folder / "ready").touch()
    return str(python)


async def drain(rig: Rig, peer: Peer, *, workers: int = 1) -> dict[str, Any]:
    """Jobs a second from the first start of a handler until the last one is settled."""
    dsn, env = await _loaded(rig, peer, peer.jobs)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")
        crew = [rig.run(f"{peer.name}-{k}", [*peer.command, "work"], env) for k in range(workers)]
        until(lambda: _left(connection, peer) < peer.jobs, seconds=60, step=0.01)
        with cost(rig, **{f"worker{k}": one for k, one in enumerate(crew)}) as cpu:
            until(lambda: _left(connection, peer) == 0, seconds=300)
            ended = time.time()
    time.sleep(0.3)
    rig.stop(*crew)
    seen = rig.seen()
    if not once(seen, peer.jobs):
        raise AssertionError(f"void: {peer.name}: {len(seen)} starts of {len({s[0] for s in seen})} jobs, of {peer.jobs}")
    rate = peer.jobs / (ended - min(start for _, _, start in seen))
    return {"rate": rate, "cpu_us": {name: round(seconds / peer.jobs * 1e6, 1) for name, seconds in cpu.items()}}


async def latency(rig: Rig, peer: Peer, *, rate: float, n: int) -> dict[str, Any]:
    """Milliseconds from before the call that enqueues a job to the start of its handler, in another process."""
    _, env = await _loaded(rig, peer, 0)
    worker = rig.run(peer.name, [*peer.command, "work"], env)
    time.sleep(3)  # it starts
    subprocess.run([*peer.command, "trickle", str(rate), str(n)], env=os.environ | env, check=True)
    time.sleep(0.5)
    rig.stop(worker)
    seen = [row for row in rig.seen() if row[0] >= 0]
    if not once(seen, n):
        raise AssertionError(f"void: {peer.name}: {len(seen)} starts of {len({s[0] for s in seen})} jobs, of {n}")
    return percentiles([start - called for _, called, start in seen])


async def _loaded(rig: Rig, peer: Peer, jobs: int) -> tuple[str, dict[str, str]]:
    """A database with the peer's schema and that many jobs: its DSN, and the environment of the peer's processes."""
    dsn = await rig.database(schema=False)
    parts = conninfo_to_dict(dsn)
    url = f"postgresql:///{parts['dbname']}?host={parts['host']}&port={parts.get('port', 5432)}&user={parts.get('user', 'postgres')}"
    env = {"PEER_DSN": url, "BENCH_DIR": str(rig.folder), "PEER_MODULES": str(CACHE / "graphile")}
    subprocess.run([*peer.command, "load", str(jobs)], env=os.environ | env, check=True)
    return dsn, env


def _left(connection: Any, peer: Peer) -> int:
    return int(connection.execute(peer.left).fetchone()[0])
