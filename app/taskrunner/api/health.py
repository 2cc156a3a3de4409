"""Is it there, is it ready."""

import asyncio

from aiohttp import web

from taskrunner.api import shapes
from taskrunner.api.documents import answer
from taskrunner.api.routes import Answer, Route
from taskrunner.domain.errors import Unavailable
from taskrunner.store.tasks import Store

LOOK = 0.25  # seconds between two looks for a schema that is not there yet
NO_SCHEMA = "the schema is not there yet: a scheduler makes it when it starts, or `taskrunner migrate up`"


class Readiness:
    """Whether the door may take calls. It opens once, when the schema is there, and closes once, when the process stops."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reason: str | None = NO_SCHEMA
        self.opened = asyncio.Event()
        self.looked = asyncio.Event()  # once, whatever was seen

    @property
    def open(self) -> bool:
        """Whether calls are taken."""
        return self._reason is None

    def check(self) -> None:
        """Raises Unavailable with the reason while calls cannot be answered. Asks nobody."""
        if self._reason is not None:
            raise Unavailable(self._reason)

    async def run(self) -> None:
        """Looks until the schema is there."""
        while True:
            try:
                if await self._store.ready():
                    self._reason = None
                    self.opened.set()
                    self.looked.set()
                    return
                self._reason = NO_SCHEMA
            except Unavailable as error:
                self._reason = str(error)
            self.looked.set()
            await asyncio.sleep(LOOK)

    def close(self, reason: str) -> None:
        """No more calls: the reason is the service's, not the database's."""
        self._reason = reason


class Health:
    """Handlers for probes."""

    def __init__(self, *, store: Store, readiness: Readiness) -> None:
        self._store = store
        self._readiness = readiness

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        probes = [("/api/healthz", self.healthz)]
        probes += [(path, self.livez) for path in ("/livez", "/api/livez")]
        probes += [(path, self.readyz) for path in ("/readyz", "/api/readyz")]
        said = Answer("yes", shapes.Message)
        return [
            *(
                Route(method="GET", path=path, handler=handler, group="service", scope=None, answers={200: said})
                for path, handler in probes
            ),
        ]

    async def healthz(self, _: web.Request) -> web.Response:
        """200 while the database answers."""
        await self._store.ping()
        return answer({"msg": "service is healthy"})

    async def livez(self, _: web.Request) -> web.Response:
        """200 while the loop turns, whatever the database does: restart the process only when this fails."""
        return answer({"msg": "alive"})

    async def readyz(self, _: web.Request) -> web.Response:
        """200 while calls can be answered: the database is there and has the schema."""
        self._readiness.check()
        await self._store.ping()
        return answer({"msg": "ready"})
