"""How a worker starts, drains and dies."""

import asyncio
import time
from typing import Any

import pytest
from worker.bench import open_bench
from worker.peer import Peer
from worker.shop import describe, give, outcomes, settings, worker

from taskrunner.domain.errors import ConfigurationError
from taskrunner.wire.pb.taskrunner.v1 import Outcome
from taskrunner.worker.link import Link
from taskrunner.worker.places import Place
from taskrunner.worker.role import serve


async def test_leaving_drains(peer: Peer) -> None:
    async with worker(peer, slots=1):
        line = await peer.line()
        running, waiting = await give(line, "wire.sleep", 0.3, 60)
        await line.until(lambda: any(message.started for message in line.got))
    done = await outcomes(line, [running, waiting])
    assert (done[running].outcome, done[waiting].outcome) == (Outcome.COMPLETED, Outcome.RELEASED)
    assert [message.goodbye.last for message in line.got if message.goodbye is not None] == [False, True]
    assert line.got[-1].goodbye is not None
    assert [message.capacity.slots for message in line.got if message.capacity is not None] == [0]
    assert line.ended.is_set()


async def test_what_outlives_the_grace_is_interrupted_and_a_stuck_thread_is_left_behind(peer: Peer) -> None:
    async with worker(peer, grace=0.2):
        line = await peer.line()
        slow, deaf = (await give(line, "wire.sleep", 60))[0], (await give(line, "wire.deaf", 5))[0]
        await line.until(lambda: any(message.started for message in line.got))
        began = time.monotonic()
    assert time.monotonic() - began < 0.2 + 2
    done = await outcomes(line, [slow, deaf])
    assert {done[slow].outcome, done[deaf].outcome} == {Outcome.SNOOZED}


async def test_a_session_that_ended_because_we_said_so_is_not_taken_for_lost() -> None:
    def nothing(*_: object) -> None:
        pass

    async with open_bench() as bench:
        before = bench.session.id
        link = Link(addresses=[], session=bench.session, name="", address=Place("", 0), settings=settings(), begun=nothing, changed=nothing)
        link.close()
        link.over(before)  # as the next beat says
        assert bench.session.id == before


async def test_without_a_scheduler_a_worker_starts_and_stops(unused_tcp_port: int) -> None:
    began = time.monotonic()
    async with serve(settings(), (f"127.0.0.1:{unused_tcp_port}",)) as room:
        assert (await describe(room)).scheduler == ""
    assert time.monotonic() - began < 3


async def test_sys_exit_in_a_background_task_of_a_handler_is_survived(peer: Peer) -> None:
    async with worker(peer):
        line = await peer.line()
        (id_,) = await give(line, "wire.exit", 0)
        assert (await outcomes(line, [id_]))[id_].result == "still here"


@pytest.mark.parametrize("more", [{"handlers": "worker.nowhere"}, {"worker_host": "192.0.2.1"}])
async def test_what_cannot_work_is_said_at_the_start(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"TASKRUNNER_HANDLERS: |\(WORKER_HOST, WORKER_PORT\)"):
        await serve(settings(**more), ("127.0.0.1:1",)).__aenter__()


async def test_a_worker_that_dies_ends_the_body(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise LookupError("a bug of ours")

    with pytest.raises(ExceptionGroup) as caught:
        async with worker(peer):
            line = await peer.line()
            monkeypatch.setattr("taskrunner.worker.link.find_places", die)
            line.hang_up.set()
            await asyncio.sleep(10)
    assert "a bug of ours" in repr(caught.value)
