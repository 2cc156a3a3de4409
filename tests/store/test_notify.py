"""Hints of other processes: a connection that hears nothing any more is given up, and nothing that is said there can do harm."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from store.desk import Desk

from taskrunner.domain.errors import Unavailable
from taskrunner.domain.lanes import Lanes
from taskrunner.domain.task import Lane
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
GOOD = {"queue": "q", "type": "t", "priority": 2, "run_at": "2026-01-01T00:00:00+00:00", "in": 0.5}
LANE = st.fixed_dictionaries({name: st.just(value) | JSON for name, value in GOOD.items()})
HINT = st.fixed_dictionaries({}, optional={"lanes": st.lists(LANE, max_size=2) | JSON, "cancels": JSON, "look": JSON})


def said(**lane: Any) -> str:
    return json.dumps({"v": 1, "lanes": [GOOD | lane]})


@settings(max_examples=100, deadline=None)
@example(said(run_at="2026-01-01T00:00:00"))
@example(said(run_at="0001-01-01T00:00:00+14:00"))
@example(said(run_at="0001-01-01T00:00:00-14:00"))
@example(said(priority=True))
@example(said(priority=5))
@example(said(queue=["q"]))
@example(said(type="a\0b"))
@example(said(**{"in": "soon"}))
@example(said(**{"in": None}))
@example(said(**{"in": 10**400}))
@given((HINT | JSON).map(json.dumps) | st.text())
def test_what_anybody_may_say_is_a_hint_or_a_reason_to_look(text: str) -> None:
    hint = Hint.load(text)
    lanes = Lanes()
    for lane, (run_at, delay) in hint.lanes.items():
        assert [type(value) for value in lane[:3]] == [str, str, int]
        assert 1 <= lane.priority <= 4
        assert all(lane[:2])
        assert "\0" not in lane.queue + lane.task_type
        assert run_at.tzinfo is UTC
        assert isfinite(delay)
        lanes.found(lane, run_at=run_at, due_at=delay, now=0.0)
    assert all(isinstance(session, UUID) for session in hint.cancels)
    assert len(lanes.windows(timedelta(seconds=2), None)) <= len(hint.lanes)


def test_what_we_say_ourselves_is_read_as_it_was_meant() -> None:
    meant = Hint(cancels={UUID(int=7)})
    meant.add(Lane("q", "t", 4), datetime(2026, 1, 1, tzinfo=UTC), -0.25)
    assert Hint.load(meant.dump("me")) == meant
    assert Hint.load(said()).lanes == {Lane("q", "t", 2): (datetime(2026, 1, 1, tzinfo=UTC), 0.5)}
