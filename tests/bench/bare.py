"""The route that creates tasks, without the database: everything else is done, and the answer is made up."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import uvloop

from taskrunner.api import role
from taskrunner.domain.task import Created, NewTask
from taskrunner.settings import Settings


class Nothing:
    """A store that says it has stored."""

    async def ready(self) -> bool:
        """It is."""
        return True

    async def ping(self) -> None:
        """It answers."""

    async def create(self, tasks: Sequence[NewTask]) -> list[Created]:
        """Made up."""
        now = datetime.now(UTC)
        return [Created(uuid4(), now, now) for _ in tasks]


async def main(port: int) -> None:
    """Serve until killed."""
    async with role.serve(Settings(http_port=port), Nothing()):  # type: ignore[arg-type]  # it is not a Store, that is the point
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
