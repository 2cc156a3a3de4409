"""What a worker hears from a scheduler, from Hello to the end, over real sockets."""

import asyncio
import json
from typing import Any
from uuid import UUID

import pytest
from grpclib import GRPCError
from grpclib import Status as Code
from grpclib.protocol import Stream
from scheduler.workman import House, Workman, until

from taskrunner.domain.task import NewTask
from taskrunner.wire.columns import ints, pack_doubles
from taskrunner.wire.pb.taskrunner.v1 import Capacity, Hello, Outcome, Outcomes, Started, WorkerMessage


async def create(house: House, n: int = 1, **fields: Any) -> list[UUID]:
    made = await house.store.create([NewTask(**{"task_type": "t", "payload": json.dumps(number), **fields}) for number in range(n)])
    return [one.id for one in made]


async def test_hello_is_answered_with_welcome(house: House) -> None:
    address, _ = await house.scheduler(lease=3)
    welcome = await house.man().connect(address)
    assert (welcome.protocol, welcome.over, welcome.lost_ids) == (1, False, b"")
    assert welcome.lease == 3.0
    assert welcome.beat == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("first", "code", "sentence"),
    [
        (WorkerMessage(hello=Hello(protocol=2)), Code.FAILED_PRECONDITION, "this scheduler speaks protocol 1, the worker speaks 2"),
        (WorkerMessage(started=Started()), Code.INVALID_ARGUMENT, "the first message of a Work stream is Hello"),
        (WorkerMessage(hello=Hello(protocol=1, session=b"short")), Code.INVALID_ARGUMENT, "Hello is not understood"),
        (WorkerMessage(hello=Hello(protocol=1, session=bytes(16), ids=bytes(16))), Code.INVALID_ARGUMENT, "different lengths"),
        (
            WorkerMessage(hello=Hello(protocol=1, session=bytes(16), ids=bytes(17), epochs=bytes(8))),
            Code.INVALID_ARGUMENT,
            "not understood",
        ),
        (
            WorkerMessage(hello=Hello(protocol=1, session=bytes(16), task_types=["a", "b"], max_attempts=[5])),
            *(Code.INVALID_ARGUMENT, "different lengths"),
        ),
        (
            WorkerMessage(hello=Hello(protocol=1, session=bytes(16), task_types=["a", "b"], timeouts=[5.0])),
            *(Code.INVALID_ARGUMENT, "different lengths"),
        ),
        *(
            (WorkerMessage(hello=Hello(protocol=1, session=bytes(16), **wrong)), Code.INVALID_ARGUMENT, sentence)
            for wrong, sentence in (
                ({"task_types": ["a", "b"], "max_attempts": [0, 1001]}, "max_attempts are 1 to 1000"),
                ({"task_types": ["a", "b"], "timeouts": [0.0, -1.0]}, "timeouts are up to 2592000 seconds"),
                ({"task_types": ["a"], "timeouts": [float("nan")]}, "timeouts are up to"),
                ({"task_types": ["a"], "timeouts": [float("inf")]}, "timeouts are up to"),
                ({"capacity": Capacity(slots=2**31)}, "slots are 2147483647 at most"),
            )
        ),
    ],
)
async def test_a_hello_that_cannot_be_understood_is_refused_with_a_sentence(
    house: House, first: WorkerMessage, code: Code, sentence: str
) -> None:
    address, _ = await house.scheduler()
    man = house.man()
    await man.say(address, first)
    with pytest.raises(GRPCError, match=sentence) as caught:
        await man.hear()
    assert caught.value.status == code
    assert not (await house.man().connect(address)).over  # and nobody else is harmed


async def test_a_hello_on_a_stream_that_broke_long_ago_takes_nothing_from_the_one_that_is_open(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address, streams=2**31)  # F46
    late = house.man(session=man.session, resumed=True, streams=man.streams)
    await man.connect(address)
    assert (await late.connect(address)).over
    await create(house)
    await man.take()
    await asyncio.sleep(1.0)  # more than two looks for what is to be taken back
    assert (await man.report(Outcome.COMPLETED)).stale_ids == b""


async def test_tasks_arrive_with_all_their_columns(house: House) -> None:
    address, _ = await house.scheduler(max_attempts=9, timeout=77)
    man = house.man()
    await man.connect(address, max_attempts=[0], timeouts=[12.5])
    ids = await create(house, 3)
    got: dict[bytes, Any] = {}
    while len(got) < 3:
        tasks = await man.hear_a("tasks")
        n = len(tasks.ids) // 16
        assert (tasks.task_type, tasks.queue, ints(tasks.attempts), ints(tasks.max_attempts)) == ("t", "default", (1,) * n, (9,) * n)
        assert len(tasks.run_ats) == 8 * n
        got |= {tasks.ids[16 * k : 16 * k + 16]: json.loads(tasks.payloads[k]) for k in range(n)}
    assert got == {id_.bytes: number for number, id_ in enumerate(ids)}


async def test_what_a_claim_took_from_several_queues_leaves_in_one_write(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    queues = ["first", "second", "third"]
    writes: list[list[str]] = []
    send = Stream.send_data

    async def noted(self: Stream, data: bytes, end_stream: bool = False) -> None:
        writes.append([queue for queue in queues if queue.encode() in data])
        await send(self, data, end_stream)

    address, _ = await house.scheduler()
    man = await house.workman(address)
    monkeypatch.setattr(Stream, "send_data", noted)
    await house.store.create([NewTask(task_type="t", payload="1", queue=queue) for queue in queues])
    assert {(await man.hear_a("tasks")).queue for _ in queues} == {*queues}
    assert queues in writes


async def test_outcomes_are_settled_and_told(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    ids = await create(house, 7)
    await man.take(7)
    await man.work.send_message(WorkerMessage(started=Started(ids=b"".join(man.held), epochs=b"".join(man.held.values()))))
    await until(lambda: all_running(house, ids))
    kinds: dict[UUID, tuple[Outcome | int, dict[str, Any]]] = {
        ids[0]: (Outcome.COMPLETED, {"results": [b'{"a": 1}']}),
        ids[1]: (Outcome.RETRY, {"errors": ["e"], "delays": pack_doubles([60.0])}),
        ids[2]: (Outcome.FAILED, {"errors": ["never"]}),
        ids[3]: (Outcome.SNOOZED, {"delays": pack_doubles([60.0])}),
        ids[4]: (Outcome.CANCELLED, {}),
        ids[5]: (99, {"errors": ["from the future"], "delays": pack_doubles([60.0])}),
    }
    for id_, (outcome, columns) in kinds.items():
        assert (await man.report(outcome, [id_.bytes], **columns)).stale_ids == b""
    assert await house.statuses(ids) == ["COMPLETED", "PENDING", "FAILED", "PENDING", "CANCELLED", "PENDING", "RUNNING"]
    tasks = [await house.store.get(id_) for id_ in ids]
    assert [task.attempt for task in tasks if task] == [1, 1, 1, 0, 1, 1, 1]
    assert [task.error for task in tasks if task] == [None, "e", "never", None, None, "from the future", None]


async def all_running(house: House, ids: list[UUID]) -> bool:
    return set(await house.statuses(ids)) == {"RUNNING"}


async def test_a_result_that_cannot_be_stored_fails_its_task_and_says_why(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    (bad, good) = await create(house, 2)
    await man.take(2)
    results = {bad.bytes: b'"\\u0000"', good.bytes: b"1"}
    await man.report(Outcome.COMPLETED, [*results], results=[*results.values()])
    task = await house.store.get(bad)
    assert task is not None
    assert task.error is not None
    assert task.error.startswith("what the handler returned or raised cannot be stored")
    assert await house.statuses([bad, good]) == ["FAILED", "COMPLETED"]


async def test_what_is_no_longer_the_worker_s_is_stale(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    (id_,) = await create(house)
    await man.take()
    man.held[id_.bytes] = (9).to_bytes(8, "big")
    settled = await man.report(Outcome.COMPLETED)
    assert (settled.stale_ids, settled.stale_epochs) == (id_.bytes, (9).to_bytes(8, "big"))
    assert await house.statuses([id_]) == ["QUEUED"]


@pytest.mark.parametrize(
    "outcomes",
    [Outcomes(ids=bytes(16)), Outcomes(ids=bytes(17), epochs=bytes(8)), Outcomes(ids=bytes(16), epochs=bytes(8), results=[b"1", b"2"])],
)
async def test_torn_outcomes_end_the_stream_with_a_sentence(house: House, outcomes: Outcomes) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    await man.work.send_message(WorkerMessage(outcomes=outcomes))
    with pytest.raises(GRPCError, match="different lengths") as caught:
        await man.hear()
    assert caught.value.status == Code.INVALID_ARGUMENT


async def test_a_worker_is_sent_no_more_than_it_has_places_for(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address, slots=2)
    ids = await create(house, 5)
    await man.take(2)
    assert sorted(await house.statuses(ids)) == ["PENDING"] * 3 + ["QUEUED"] * 2
    await man.report(Outcome.COMPLETED, [next(iter(man.held))])
    await man.take(1)
    await man.work.send_message(WorkerMessage(capacity=Capacity(slots=4)))
    await man.take(2)
    assert sorted(await house.statuses(ids)) == ["COMPLETED"] + ["QUEUED"] * 4


async def test_a_worker_whose_loop_lags_is_sent_nothing_until_it_is_well(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    await man.beat(address, lag=2.0)
    ids = await create(house, 3)
    other = await house.workman(address, types=("u",))
    await create(house, task_type="u")
    await other.take()  # so the dispatcher has been through all lanes
    assert set(await house.statuses(ids)) == {"PENDING"}
    await man.beat(address, lag=0.0)
    await man.take(3)


async def test_a_lag_that_another_scheduler_hears_counts_and_ends_here_too(house: House) -> None:
    first, _ = await house.scheduler()
    second, _ = await house.scheduler()
    man = house.man()
    await man.connect(first)
    await man.beat(first, lag=2.0)
    man.cut("beat")  # and goes on elsewhere
    await man.beat(second, lag=3.0)
    ids = await create(house, 3)
    for _ in range(6):
        await man.beat(second, lag=3.0)
        await asyncio.sleep(0.25)
    assert set(await house.statuses(ids)) == {"PENDING"}
    await man.beat(second, lag=0.0)
    await man.take(3)


async def test_a_cancel_is_told_by_the_stream_and_by_each_beat(house: House) -> None:
    address, _ = await house.scheduler()
    man = await house.workman(address)
    (id_,) = await create(house)
    await man.take()
    await house.store.cancel(id_)
    cancel = await man.hear_a("cancel")
    assert (cancel.ids, cancel.epochs) == (id_.bytes, man.held[id_.bytes])
    reply = await man.beat(address)
    assert (reply.cancel_ids, reply.over) == (id_.bytes, False)
    await man.report(Outcome.CANCELLED)
    assert await house.statuses([id_]) == ["CANCELLED"]


async def test_a_cancel_that_is_not_obeyed_is_forced(house: House) -> None:
    address, _ = await house.scheduler(cancel_grace=0)
    man = await house.workman(address)
    (id_,) = await create(house)
    await man.take()
    await house.store.cancel(id_)
    async with asyncio.TaskGroup() as group:
        beats = group.create_task(beating(man, address))
        await until(lambda: is_now(house, id_, "CANCELLED"))
        beats.cancel()
    assert (await man.report(Outcome.COMPLETED)).stale_ids == id_.bytes


async def beating(man: Workman, address: str) -> None:
    while True:
        await man.beat(address)
        await asyncio.sleep(0.2)


async def is_now(house: House, id_: UUID, status: str) -> bool:
    return await house.statuses([id_]) == [status]
