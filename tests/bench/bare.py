"""The API whose creates do everything but write: ``python bare.py PORT DSN``."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import uvloop

from taskrunner.api import role
from taskrunner.domain.task import Created, NewTask
from taskrunner.process import spare_the_collector
from taskrunner.settings import Settings
from taskrunner.store.tasks import open_store


async def nothing(tasks: Sequence[NewTask]) -> list[Created]:
    """As if they were written."""
    now = datetime.now(UTC)
    return [Created(uuid4(), now, now) for _ in tasks]


async def main(port: int, dsn: str) -> None:
    """Serve until killed."""
    settings = Settings(http_port=port)
    async with open_store(dsn, settings) as store:
        store.create = nothing  # type: ignore[method-assign]  # this is what is left out
        async with role.serve(settings, store):
            spare_the_collector()
            await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
