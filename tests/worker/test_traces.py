"""A handler is told in which trace its task was made, and by which session it runs, wherever it runs."""

from uuid import UUID

import pytest
from worker.bench import tasks
from worker.peer import Peer
from worker.shop import outcomes, worker

from taskrunner.wire.columns import split

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("task_type", ["wire.trace", "wire.trace_plain", "child.trace"])
async def test_a_handler_knows_its_trace(peer: Peer, task_type: str) -> None:
    async with worker(peer, handlers="worker.wire_tasks,worker.child_tasks"):
        line = await peer.line()
        traced, untraced = tasks(task_type, [1, 2]), tasks(task_type, [3])
        traced.traceparents = TRACE.encode() + bytes(55)
        await line.give(traced)
        await line.give(untraced)
        ids = [*split(traced.ids, 16), *split(untraced.ids, 16)]
        ended = await outcomes(line, ids)
        session = str(UUID(bytes=line.hello.session))
        assert [ended[id_].result for id_ in ids] == [[TRACE, session], [None, session], [None, session]]


async def test_a_torn_column_is_refused(peer: Peer) -> None:
    async with worker(peer):
        line = await peer.line()
        torn = tasks("wire.trace", [1])
        torn.traceparents = TRACE.encode()[:-1]
        await line.give(torn)
        assert (await peer.line()).hello.resumed
