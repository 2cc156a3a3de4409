"""A whole worker against a scheduler that does what the test says."""

import asyncio
import time
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from worker.peer import Peer, open_peer
from worker.shop import describe, give, outcomes, until, worker

from taskrunner.wire.columns import split
from taskrunner.wire.pb.taskrunner.v1 import BeatReply, Cancel, Goodbye, Outcome, Settled, Welcome
from taskrunner.worker.role import Room


async def test_hello_says_what_the_worker_is(peer: Peer) -> None:
    async with worker(peer, queues="a,b") as room:
        hello = (await peer.line()).hello
        types = dict(zip(hello.task_types, zip(hello.max_attempts, hello.timeouts, strict=True), strict=True))
        assert types["wire.echo"] == (3, 7)
        assert types["wire.block"] == (0, 0)
        assert {"webhook", "email"} < types.keys()
        assert (hello.protocol, len(hello.session), hello.resumed, hello.queues) == (1, 16, False, ["a", "b"])
        assert hello.capacity is not None
        assert (hello.capacity.slots, hello.capacity.prefetch, hello.ids, hello.address) == (4, 0, b"", room.address)


async def test_tasks_run_and_their_outcomes_are_kept_until_settled(peer: Peer) -> None:
    peer.settles = False
    async with worker(peer) as room:
        line = await peer.line()
        (id_,) = await give(line, "wire.echo", {"a": 1})
        done = (await outcomes(line, [id_]))[id_]
        assert (done.outcome, done.result) == (Outcome.COMPLETED, {"a": 1})
        assert line.outcomes[0].batch == 1
        assert (await describe(room)).unconfirmed == 1
        await line.settle(1)
        await until(lambda: describe(room), lambda said: said.unconfirmed == 0)


async def test_a_broken_stream_stops_no_handler_and_loses_no_outcome(peer: Peer, tmp_path: Path) -> None:
    go = tmp_path / "go"
    peer.settles = False
    async with worker(peer):
        line = await peer.line()
        confirmed, kept = await give(line, "wire.echo", 0, 1)
        (running,) = await give(line, "wire.wait", str(go))
        await outcomes(line, [confirmed, kept])
        line.hang_up.set()
        again = await peer.line()
        assert (again.hello.session, again.hello.resumed) == (line.hello.session, True)
        assert (line.hello.stream, again.hello.stream) == (1, 2)
        assert set(split(again.hello.ids, 16)) == {confirmed, kept, running}
        assert len(again.hello.epochs) == 3 * 8
        repeated = await outcomes(again, [confirmed, kept])
        assert [repeated[id_].result for id_ in (confirmed, kept)] == [0, 1]
        assert again.outcomes[0].batch == 1
        await again.settle(1)
        go.touch()
        assert (await outcomes(again, [running]))[running].result == "seen"
        assert again.outcomes[-1].batch == 2


async def test_what_a_welcome_calls_lost_is_stopped_and_never_reported(peer: Peer) -> None:
    peer.settles = False
    async with worker(peer, slots=2) as room:
        line = await peer.line()
        (done,) = await give(line, "wire.echo", 0)
        lost, kept, waiting = await give(line, "wire.sleep", 60, 0.5, 60)
        await outcomes(line, [done])
        gone = done + lost + waiting
        peer.welcome = Welcome(protocol=1, beat=0.1, lease=10, lost_ids=gone, lost_epochs=line.hello.epochs[:0] + (b"\0" * 7 + b"\1") * 3)
        line.hang_up.set()
        again = await peer.line()
        assert set(split(again.hello.ids, 16)) == {done, lost, kept, waiting}
        assert set(await outcomes(again, [kept])) == {kept}
        said = await until(lambda: describe(room), lambda said: said.running == 0)
        assert (said.waiting, said.unconfirmed) == (0, 1)


async def test_a_session_that_is_over_is_dropped_and_a_new_one_begins(peer: Peer) -> None:
    peer.settles = False
    async with worker(peer):
        line = await peer.line()
        (done,) = await give(line, "wire.echo", 0)
        await give(line, "wire.sleep", 60)
        await outcomes(line, [done])
        peer.welcome = Welcome(protocol=1, over=True)
        line.hang_up.set()
        over = await peer.line()
        assert over.hello.session == line.hello.session
        peer.welcome = Welcome(protocol=1, beat=0.1, lease=10)
        fresh = await peer.line()
        while fresh.hello.session == line.hello.session:
            fresh = await peer.line()
        assert (fresh.hello.resumed, fresh.hello.ids) == (False, b"")
        (id_,) = await give(fresh, "wire.echo", 5)
        assert (await outcomes(fresh, [id_]))[id_].result == 5
        await peer.until_beats(3)
        assert peer.beats[-1].session == fresh.hello.session


async def test_a_beat_may_say_that_the_session_is_over_too(peer: Peer) -> None:
    async with worker(peer):
        line = await peer.line()
        await give(line, "wire.sleep", 60)
        await peer.until_beats(1)
        peer.reply = BeatReply(over=True)
        fresh = await peer.line()
        peer.reply = BeatReply()
        assert fresh.hello.session != line.hello.session
        assert (fresh.hello.resumed, fresh.hello.ids) == (False, b"")
        await line.ended.wait()


@pytest.mark.parametrize("by_beat", [False, True])
async def test_cancel_comes_by_stream_or_by_beat(peer: Peer, by_beat: bool) -> None:
    async with worker(peer):
        line = await peer.line()
        (id_,) = await give(line, "wire.sleep", 60)
        await line.until(lambda: any(message.started for message in line.got))
        epoch = b"\0" * 7 + b"\1"
        if by_beat:
            peer.reply = BeatReply(cancel_ids=id_, cancel_epochs=epoch)
        else:
            await line.send(cancel=Cancel(ids=id_, epochs=epoch))
        assert (await outcomes(line, [id_]))[id_].outcome is Outcome.CANCELLED


async def test_stale_outcomes_are_forgotten(peer: Peer) -> None:
    peer.settles = False
    async with worker(peer) as room:
        line = await peer.line()
        (id_,) = await give(line, "wire.echo", 0)
        await outcomes(line, [id_])
        await line.send(settled=Settled(batches=[1], stale_ids=id_, stale_epochs=b"\0" * 8))
        await until(lambda: describe(room), lambda said: said.unconfirmed == 0)


async def test_goodbye_moves_the_worker_to_another_scheduler(peer: Peer) -> None:
    async with open_peer() as other, worker(peer, other):
        first, second = asyncio.ensure_future(peer.line()), asyncio.ensure_future(other.line())
        await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
        line, rest = (first.result(), second) if first.done() else (second.result(), first)
        (id_,) = await give(line, "wire.sleep", 0.3)
        began = time.monotonic()
        await line.send(goodbye=Goodbye(reason="an upgrade"))
        next_line = await rest
        assert time.monotonic() - began < 1.5
        assert line.got[-1].goodbye is not None
        assert line.ended.is_set()  # before the Hello to the other one
        assert (next_line.hello.session, next_line.hello.resumed, next_line.hello.ids) == (line.hello.session, True, id_)
        assert (await outcomes(next_line, [id_]))[id_].result == "slept"


async def test_a_scheduler_that_says_nothing_any_more_is_left_with_all_that_is_held(peer: Peer) -> None:
    peer.settles = peer.breathes = False
    async with worker(peer):
        line = await peer.line()
        (id_,) = await give(line, "wire.echo", 1)
        await outcomes(line, [id_])
        again = await peer.line()
        assert (again.hello.session, again.hello.ids) == (line.hello.session, id_)


async def test_a_blocking_handler_costs_no_beats_and_shows_as_lag(peer: Peer) -> None:
    async with worker(peer):
        line = await peer.line()
        await peer.until_beats(2)
        assert peer.beats[-1].lag == 0
        (id_,) = await give(line, "wire.block", 1.0)
        await peer.until_beats(8)
        assert 0.2 < max(beat.lag for beat in peer.beats) < 2
        assert (await outcomes(line, [id_]))[id_].result == "slept"
        await peer.until_beats(3)
        assert peer.beats[-1].lag == 0


async def test_past_its_trust_in_the_lease_a_worker_starts_nothing_more(peer: Peer) -> None:
    peer.welcome, peer.reply = Welcome(protocol=1, beat=0.1, lease=1), None
    async with worker(peer):
        line = await peer.line()
        (running,) = await give(line, "wire.sleep", 1.5)
        await asyncio.sleep(0.9)  # the trust: 0.8 of the lease, after Hello was sent
        (late,) = await give(line, "wire.echo", "late")
        assert (await outcomes(line, [running]))[running].result == "slept"
        assert not any(late in split(one.ids, 16) for one in line.outcomes)
        assert peer.beat_streams > 1  # it has tried elsewhere, without an answer
        peer.reply = BeatReply()
        assert (await outcomes(line, [late]))[late].result == "late"


async def test_unanswered_hellos_and_foreign_protocols_are_left(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskrunner.worker.conversation.HANDSHAKE", 0.2)
    peer.welcome = None
    async with worker(peer):
        await peer.line()
        peer.welcome = Welcome(protocol=2)
        foreign = await peer.line()
        await foreign.ended.wait()
        peer.welcome = Welcome(protocol=1, beat=0.1, lease=10)
        line = await peer.line()
        while line.ended.is_set():
            line = await peer.line()
        (id_,) = await give(line, "wire.echo", 1)
        await outcomes(line, [id_])


async def test_health_follows_the_connection(peer: Peer) -> None:
    async def health(room: Room) -> int:
        host, _, port = room.address.rpartition(":")
        async with Channel(host, int(port)) as channel:
            return int((await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)).status)

    peer.welcome = None
    async with worker(peer) as room:
        assert await health(room) == HealthCheckResponse.NOT_SERVING
        line = await peer.line()
        await line.send(welcome=Welcome(protocol=1, beat=0.1, lease=10))
        await until(lambda: health(room), lambda status: status == HealthCheckResponse.SERVING)
        said = await describe(room)
        assert (said.slots, said.scheduler, said.draining, said.session) == (4, peer.address, False, line.hello.session)


async def test_leaving_at_any_moment_of_a_connection_is_survived(peer: Peer) -> None:
    peer.refusal = GRPCError(Status.UNAVAILABLE, "this scheduler is stopping: go on with another one")
    for pause in range(12):
        async with worker(peer):
            await asyncio.sleep(pause * 0.003)
    peer.refusal = None
    for pause in range(12):
        async with worker(peer):
            await asyncio.sleep(pause * 0.003)
