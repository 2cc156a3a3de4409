"""Spans for statements: each below the span in which it is asked for, and those that moved tasks also on their own."""

from collections.abc import Mapping
from time import time_ns
from typing import Any, Self

from psycopg import AsyncCursor

from taskrunner.kit.trace import Tracer
from taskrunner.store.queries import queries


def traced_cursor(tracer: Tracer) -> type[AsyncCursor[Any]]:
    """A cursor class for ``connection.cursor_factory``. Statements have the names of ``sql/*.sql``; their parameters are never told."""
    ours = {query.text: query for query in queries().values()}

    class TracedCursor(AsyncCursor[Any]):
        async def execute(self, query: Any, params: Any = None, **more: Any) -> Self:
            if not query:  # the pool asks whether the connection is still there
                return await super().execute(query, params, **more)
            began = time_ns()
            try:
                await super().execute(query, params, **more)
            except BaseException as error:
                self._note(query, began, error)
                raise
            self._note(query, began, None)
            return self

        def _note(self, query: Any, began: int, error: BaseException | None) -> None:
            known = ours.get(query) if isinstance(query, str) else None
            name = known.name if known else next(iter(str(query).lower().split(None, 1)), "statement")
            moved = known is not None and bool(known.moves) and (error is not None or self.rowcount > 0)
            tracer.note(name, self._words(name), began=began, alone=moved, error=error)

        def _words(self, name: str) -> Mapping[str, str | int]:
            info = self.connection.info
            return {"db.system.name": "postgresql", "db.namespace": info.dbname, "db.query.summary": name, "server.address": info.host}

    return TracedCursor
