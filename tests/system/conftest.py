"""The whole program from outside: processes, sockets, PostgreSQL as anybody would have it."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.cluster import free_ports
from faults.database import Server
from faults.processes import Process

DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
async def plain(tmp_path: Path, postgres_bin: Path | None) -> AsyncIterator[Server]:
    """A PostgreSQL of the system's where there is one, not started yet."""
    server = Server(tmp_path / "postgres", free_ports(1)[0], postgres_bin or (DEBIAN if (DEBIAN / "postgres").exists() else None))
    try:
        yield server
    finally:
        server.discard()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start ``taskrunner`` with arguments and environment; all of them are killed at the end."""
    started: list[Process] = []

    def start(*arguments: str, **settings: Any) -> Process:
        options = {name: settings.pop(name) for name in ("under", "dies_with_us") if name in settings}
        process = Process(tmp_path / f"{len(started)}.log", arguments, settings, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
