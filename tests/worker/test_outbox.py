"""Outcomes are kept until they are confirmed, whatever happens to streams."""

import os

import pytest
from worker.bench import key, read_outcomes

from taskrunner.wire.pb.taskrunner.v1 import Outcome, WorkerMessage
from taskrunner.worker.calls import Ending
from taskrunner.worker.execute import RELEASED
from taskrunner.worker.outbox import MOST_BYTES, MOST_TASKS, Outbox

EPOCH = b"\0" * 7 + b"\1"


def filled(n: int, result: bytes = b"") -> tuple[Outbox, list[bytes]]:
    outbox, ids = Outbox(lambda: None), [os.urandom(16) for _ in range(n)]
    for id_ in ids:
        outbox.completed(id_, EPOCH, result, 0)
    return outbox, ids


def taken(outbox: Outbox) -> list[WorkerMessage]:
    messages = []
    while (message := outbox.next()) is not None:
        messages.append(WorkerMessage.parse(bytes(message)))
    return messages


def batches(messages: list[WorkerMessage]) -> list[int]:
    return [message.outcomes.batch for message in messages if message.outcomes]


def ids_of(messages: list[WorkerMessage]) -> set[bytes]:
    return {id_ for message in messages for id_ in read_outcomes(message)}


def test_one_message_a_kind_and_columns_only_where_they_say_something() -> None:
    outbox, ids = filled(3)
    outbox.completed(ids[0], EPOCH, b'"r"', 1.5)
    outbox.add(os.urandom(16), EPOCH, Ending(Outcome.RETRY, error="bad", delay=2.5), 0.25)
    outbox.add(os.urandom(16), EPOCH, RELEASED, 0)
    done, retry, released = [message.outcomes for message in taken(outbox)]
    assert done is not None and retry is not None and released is not None  # noqa: PT018 — one thought
    assert (done.results, done.errors, done.delays, done.run_ms) == ([b"", b"", b"", b'"r"'], [], b"", b"\0" * 12 + b"\0\0\x05\xdc")
    assert (retry.errors, retry.tracebacks, len(retry.delays), retry.run_ms) == (["bad"], [], 8, b"\0\0\0\xfa")
    assert (released.errors, released.delays, released.run_ms) == ([], b"", b"")
    assert (outbox.size, outbox.finished) == (6, 5)  # what was given back has not finished
    assert outbox.next() is None


def test_messages_are_bounded() -> None:
    outbox, ids = filled(2 * MOST_TASKS + 1)
    messages = taken(outbox)
    assert [len(read_outcomes(message)) for message in messages] == [MOST_TASKS, MOST_TASKS, 1]
    assert ids_of(messages) == set(ids)
    large, _ = filled(5, b'"' + b"1" * (MOST_BYTES // 2 - 2) + b'"')
    assert [len(read_outcomes(message)) for message in taken(large)] == [2, 2, 1]


def test_confirmed_batches_are_forgotten_and_others_are_not() -> None:
    outbox, _ = filled(3)
    assert batches(taken(outbox)) == [1]
    outbox.completed(os.urandom(16), EPOCH, b"", 0)
    assert batches(taken(outbox)) == [2]
    outbox.settled([2, 99])
    assert outbox.size == 3
    outbox.settled([1])
    assert (outbox.size, outbox.held()) == (0, ([], []))


def test_a_new_stream_gets_everything_again_numbered_from_one() -> None:
    outbox, ids = filled(2)
    taken(outbox)
    more = os.urandom(16)
    outbox.add(more, EPOCH, RELEASED, 0)
    taken(outbox)
    late = os.urandom(16)
    outbox.completed(late, EPOCH, b"", 0)
    assert set(outbox.held()[0]) == {*ids, more, late}
    outbox.rewind()
    again = taken(outbox)
    assert (batches(again), ids_of(again)) == ([1, 2, 3], {*ids, more, late})
    outbox.settled([1, 2, 3])
    assert outbox.size == 0


@pytest.mark.parametrize("sent", [False, True])
def test_lost_outcomes_are_dropped(sent: bool) -> None:
    outbox, ids = filled(3, b"1")
    if sent:
        taken(outbox)
        outbox.rewind()
    outbox.drop({key(ids[1]), key(os.urandom(16))})
    assert outbox.size == 2
    assert ids_of(taken(outbox)) == {ids[0], ids[2]}
    outbox.rewind()
    outbox.drop({key(ids[0]), key(ids[2])})
    assert (outbox.size, taken(outbox)) == (0, [])


def test_wake_is_called_for_the_first_of_each_fill() -> None:
    woken = []
    outbox = Outbox(lambda: woken.append(1))
    for _ in range(3):
        outbox.completed(os.urandom(16), EPOCH, b"", 0)
    assert len(woken) == 1
    taken(outbox)
    outbox.completed(os.urandom(16), EPOCH, b"", 0)
    assert len(woken) == 2
