"""Hints of other processes: a connection that hears nothing any more is given up, and nothing that is said there can do harm."""

import asyncio
from typing import Any

import pytest
from store.desk import Desk

from taskrunner.domain.errors import Unavailable
from taskrunner.store import notify
from taskrunner.store.notify import Hint, listen
from taskrunner.store.pool import Connection, Line


class Stalled:
    """A connection that nobody answers any more, once it listens."""

    def __init__(self, connection: Connection) -> None:
        self.notifies = connection.notifies
        self._connection = connection
        self._listens = False

    async def execute(self, statement: str) -> None:
        if self._listens:
            await asyncio.Event().wait()
        self._listens = True
        await self._connection.execute(statement.encode())


async def test_a_connection_that_listens_and_does_not_answer_is_given_up_for_another(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "SILENCE", 0.01)
    monkeypatch.setattr(notify, "PATIENCE", 0.01)
    line = Line(desk.store.pool)
    used: list[Connection] = []
    heard: list[Hint] = []

    async def once(connection: Any) -> None:
        used.append(connection)
        await listen(connection if len(used) > 1 else Stalled(connection), heard.append, but="nobody")  # type: ignore[arg-type]  # as far as it goes

    with pytest.raises(Unavailable, match="gives no answer"):
        await line.run(once)
    assert used[0].closed
    monkeypatch.undo()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        listening = group.create_task(line.run(once))
        while len(heard) < 2:
            await asyncio.sleep(0.005)
        listening.cancel()
    assert heard == [Hint(look=True)] * 2
    await line.close()
