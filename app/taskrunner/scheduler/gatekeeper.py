"""The gatekeeper: knows which queues and types are closed, and lets nothing be claimed from them."""

import asyncio

from taskrunner.domain.lanes import Gates, Lanes
from taskrunner.scheduler.dispatch import Dispatcher
from taskrunner.store.gates import Gates as Table

SCOPES = ("queue", "type")


class Gatekeeper:
    """``run_once`` reads the gates; what is claimed afterwards obeys them."""

    def __init__(self, table: Table, lanes: Lanes, dispatcher: Dispatcher) -> None:
        self._table = table
        self._lanes = lanes
        self._dispatcher = dispatcher
        self._loop = asyncio.get_running_loop()

    async def run_once(self) -> None:
        """One pass. Raises Unavailable while the database is away; then the gates stay as they were."""
        closed = await self._table.closed()
        now = self._loop.time()
        before, gates = self._lanes.gates, Gates(*({name: now + seconds for s, name, seconds in closed if s == scope} for scope in SCOPES))
        self._lanes.gates = gates
        if before.queues.keys() - gates.queues.keys() or before.types.keys() - gates.types.keys():
            self._dispatcher.wake()  # something is open again
