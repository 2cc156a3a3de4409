"""A cluster for each file of rows, and the figures of all of them at the end."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from faults.cluster import API, Cluster, cluster
from faults.scenario import FIGURES


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: breaks real processes; part of `make test`")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("faults: figures")
        for line in FIGURES:
            terminalreporter.write_line(line)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxied(request: pytest.FixtureRequest) -> bool:
    """Whether workers reach the schedulers through proxies; a module may say PROXIED = True."""
    return bool(getattr(request.module, "PROXIED", False))


@pytest.fixture(scope="module")
def apis(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Names of the API processes; a module may say APIS = …."""
    return tuple(getattr(request.module, "APIS", (API,)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(
    tmp_path_factory: pytest.TempPathFactory, postgres_bin: Path | None, proxied: bool, apis: tuple[str, ...]
) -> AsyncIterator[Cluster]:
    """A running cluster, this module's alone."""
    folder = tmp_path_factory.mktemp("faults")
    async with cluster(folder, postgres_bin, proxied=proxied, apis=apis) as one:
        yield one
