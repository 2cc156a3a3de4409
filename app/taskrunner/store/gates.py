"""Gates: queues and types that are closed. What is closed is not claimed; what runs goes on."""

from taskrunner.store.pool import translated
from taskrunner.store.queries import sql
from taskrunner.store.tasks import Store


class Gates:
    """Closes and opens. Raises Unavailable while the database is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def close(self, scope: str, name: str) -> None:
        """Pause a queue or a type (``scope``), until it is opened."""
        await self._write("close_gate", scope, name)

    async def open(self, scope: str, name: str) -> None:
        """Let it go on."""
        await self._write("open_gate", scope, name)

    async def closed(self) -> list[tuple[str, str, float]]:
        """What is closed: scope, name, and for how many seconds; infinity for a pause."""
        with translated():
            async with self._store.pool.connection() as connection:
                return [(row[0], row[1], row[2]) for row in await (await connection.execute(sql("list_gates"))).fetchall()]

    async def _write(self, statement: str, scope: str, name: str) -> None:
        with translated(writes=True):
            async with self._store.pool.connection() as connection:
                await connection.execute(sql(statement), {"scope": scope, "name": name})
        self._store.hints.look()
