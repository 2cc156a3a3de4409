"""The service inside a test, as docs/handlers.md shows it."""

from pathlib import Path

import pytest
from testing import shop

from taskrunner.testing import drain, service


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: the first start is the slow one."""
    return tmp_path_factory.mktemp("testing")


async def test_it_runs_what_it_is_given(data_dir: Path) -> None:
    async with service("testing.shop", data_dir=data_dir, backoff_base=0.01) as client:
        made = [await client.create("order", {"number": n}) for n in (0, 1, 2)]
        await drain(client)
        found = [await client.get(task.id) for task in made]
        assert [task.status for task in found] == ["FAILED", "COMPLETED", "COMPLETED"]
        assert [task.result for task in found[1:]] == [{"number": 1, "attempt": 2}, {"number": 2, "attempt": 1}]

        await client.create("order", {"number": 3}, delay=3600, queue="later")
        await drain(client, "default")
        with pytest.raises(TimeoutError, match="after 0.1 s order .* is PENDING, for "):
            await drain(client, timeout=0.1)

    async with service(shop, data_dir=data_dir) as client:
        assert [task async for task in client.list()] == [], "a fresh database each time"


async def test_two_at_once(data_dir: Path) -> None:
    async with service("testing.shop", data_dir=data_dir) as one, service("testing.shop", data_dir=data_dir) as two:
        await one.create("count", ["a"])
        await drain(one)
        assert [task async for task in two.list()] == []
