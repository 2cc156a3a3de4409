"""Upkeep: day leaves, the tally, old sessions, and cancels that a worker did not obey. Every scheduler does all of it."""

import structlog

from taskrunner.settings import Settings
from taskrunner.store.sessions import Sessions
from taskrunner.store.upkeep import BATCH
from taskrunner.store.upkeep import Upkeep as Tables

log = structlog.get_logger()


class Upkeep:
    """Passes for ``kit.loops.every``; each raises Unavailable while the database is away or busy."""

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
        await self._tables.sum_tally()
        await self._tables.forget_sessions()
        while await self._tables.forget_keys() == BATCH:
            pass

    async def each_hour(self) -> None:
        """Make the leaves of the days to come, drop those whose retention is over."""
        await self._tables.make_leaves()
        await self._tables.fold()
        for name in await self._tables.drop_leaves(retention=self._settings.retention):
            log.info("dropped a day that was kept long enough", leaf=name)
