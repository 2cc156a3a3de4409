"""A service of real processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from doors.town import Town


@pytest.fixture
def town(tmp_path: Path, dsn: str) -> Iterator[Town]:
    one = Town(tmp_path, dsn)
    yield one
    one.close()
