"""The store as a fixture."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from store.desk import Desk, opened


@pytest.fixture
async def desk(dsn: str) -> AsyncIterator[Desk]:
    async with opened(dsn) as it:
        yield it


@pytest.fixture
def bin_folder(postgres_bin: Path | None) -> Path | None:
    return postgres_bin


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A folder whose parents everybody may walk through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="tr-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
