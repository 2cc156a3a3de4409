"""A real API, and the command line that speaks to it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from api.door import Api, answers, opened, until
from commands.shell import Do
from commands.ward import OPTIONS, Bed, bed, prepare

from taskrunner.cli import main
from taskrunner.store.embedded import Embedded, embedded_postgres


@pytest.fixture
async def api(dsn: str) -> AsyncIterator[Api]:
    async with opened(dsn) as it:
        await until(lambda: answers(it.http, "/readyz"))
        yield it


@pytest.fixture
def run(api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Do:
    """``taskrunner`` with these words: exit code, standard output, standard error."""
    monkeypatch.setenv("TASKRUNNER_API_URL", str(api.http._base_url))

    async def act(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = await asyncio.to_thread(main, argv)
        out, err = capsys.readouterr()
        return code, "\n".join(line for line in out.splitlines() if "request failed" not in line), err

    return act


@pytest.fixture
def do(run: Do) -> Do:
    """``taskrunner task`` with these words."""

    async def act(*argv: str) -> tuple[int, str, str]:
        return await run("task", *argv)

    return act


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ward(tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None) -> AsyncIterator[Embedded]:
    async with embedded_postgres(tmp_path_factory.mktemp("ward"), options=OPTIONS, binaries=postgres_bin) as server:
        await prepare(server)
        yield server


@pytest.fixture
async def patient(ward: Embedded) -> AsyncIterator[Bed]:
    async with bed(ward) as it:
        yield it
