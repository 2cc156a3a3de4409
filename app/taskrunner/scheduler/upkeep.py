"""Upkeep: day leaves, the tally, old sessions, and cancels that a worker did not obey. Every scheduler does all of it."""

from collections.abc import Awaitable, Callable

import structlog

from taskrunner.domain.errors import TaskrunnerError
from taskrunner.settings import Settings
from taskrunner.store.sessions import Sessions
from taskrunner.store.upkeep import BATCH
from taskrunner.store.upkeep import Upkeep as Tables

log = structlog.get_logger()


class Upkeep:
    """Passes for ``kit.loops.every``. Those of one step raise Unavailable while the database is away or busy; in those of several a step
    that fails is logged, and keeps no other from being done.
    """

    def __init__(self, tables: Tables, sessions: Sessions, settings: Settings) -> None:
        self._tables = tables
        self._sessions = sessions
        self._settings = settings

    async def force_cancels(self) -> None:
        """End held tasks that were to be cancelled longer than the grace ago."""
        n = await self._sessions.force_cancels(grace=self._settings.cancel_grace)
        if n:
            log.warning("cancelled although the handlers did not stop", n=n)

    async def expire(self) -> None:
        """Fail what did not start in time."""
        while await self._tables.expire() == BATCH:
            pass

    async def each_minute(self) -> None:
        """Sum up the tally, forget old sessions and idempotency keys."""
        await _each(self._tables.sum_tally, self._tables.forget_sessions, self._forget_keys)

    async def each_hour(self) -> None:
        """Make the leaves of the days to come, drop days and counts whose retention is over."""
        await _each(self._tables.make_leaves, self._tables.fold, self._drop_leaves, self._forget_counts)

    async def _forget_keys(self) -> None:
        while await self._tables.forget_keys() == BATCH:
            pass

    async def _drop_leaves(self) -> None:
        for name in await self._tables.drop_leaves(retention=self._settings.retention):
            log.info("dropped a day that was kept long enough", leaf=name)

    async def _forget_counts(self) -> None:
        await self._tables.forget_counts(retention=self._settings.retention)


async def _each(*steps: Callable[[], Awaitable[None]]) -> None:
    for step in steps:
        try:
            await step()
        except TaskrunnerError as error:
            log.warning("upkeep failed and will be repeated", step=step.__name__.strip("_"), error=str(error))
