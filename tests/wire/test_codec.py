"""The codec writes and reads the same protobuf as betterproto2, whatever the order of the fields."""

import pytest
from grpclib.encoding.proto import ProtoCodec
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.wire.codec import Codec, varint
from taskrunner.wire.pb.taskrunner.v1 import Capacity, Goodbye, Outcome, Outcomes, SchedulerMessage, Tasks, WorkerMessage

entries = st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([b"x" * 127, b"x" * 128, b"x" * 4095, b"x" * 4096, b"x" * 20_000])))
tasks = st.builds(Tasks, task_type=st.text(), queue=st.text(), ids=st.binary(), epochs=st.binary(), run_ats=st.binary(), payloads=entries)
outcomes = st.builds(
    Outcomes,
    batch=st.integers(0, 2**64 - 1),
    outcome=st.sampled_from(list(Outcome)),
    ids=st.binary(),
    results=entries,
    errors=st.lists(st.text()),
    run_ms=st.binary(),
)
messages = st.one_of(
    tasks.map(lambda one: (SchedulerMessage(tasks=one), SchedulerMessage)),
    outcomes.map(lambda one: (WorkerMessage(outcomes=one), WorkerMessage)),
    st.just((SchedulerMessage(goodbye=Goodbye(reason="x")), SchedulerMessage)),
    st.just((WorkerMessage(capacity=Capacity(slots=1)), WorkerMessage)),
)


@given(messages)
def test_reads_what_betterproto_writes(case: tuple[object, type]) -> None:
    """And the other way round."""
    message, kind = case
    ours, theirs = Codec(), ProtoCodec()
    assert ours.decode(theirs.encode(message, kind), kind) == message
    assert theirs.decode(ours.encode(message, kind), kind) == message
    assert ours.decode(ours.encode(message, kind), kind) == message


def test_fields_of_later_versions_are_passed_over() -> None:
    """In any place: a number, fixed ones, and bytes."""
    known = bytes(Tasks(task_type="t", ids=b"i" * 16))
    unknown = (
        varint(60 << 3)
        + varint(2**40)
        + varint(61 << 3 | 1)
        + bytes(8)
        + varint(62 << 3 | 5)
        + bytes(4)
        + varint(63 << 3 | 2)
        + varint(3)
        + b"abc"
    )
    entry = bytes((9 << 3 | 2, 2)) + b"{}"
    inner = entry + unknown + known + entry
    message = Codec().decode(bytes((2 << 3 | 2,)) + varint(len(inner)) + inner, SchedulerMessage)
    assert message.tasks is not None
    assert (message.tasks.task_type, message.tasks.ids, message.tasks.payloads) == ("t", b"i" * 16, [b"{}", b"{}"])


@given(tasks, st.data())
def test_torn_messages_are_refused(one: Tasks, data: st.DataObject) -> None:
    """Never with anything but a ValueError or EOFError, and never by guessing: what is read of a cut message is what betterproto2 reads."""
    whole = Codec().encode(SchedulerMessage(tasks=one), SchedulerMessage)
    cut = whole[: data.draw(st.integers(0, max(0, len(whole) - 1)))]
    try:
        message = Codec().decode(cut, SchedulerMessage)
    except (ValueError, EOFError):
        return
    assert message == ProtoCodec().decode(cut, SchedulerMessage)


def test_a_torn_column_is_refused() -> None:
    """The outer length fits, an inner one does not."""
    inner = bytes((9 << 3 | 2, 5)) + b"abc"
    with pytest.raises(ValueError, match="torn"):
        Codec().decode(bytes((2 << 3 | 2, len(inner))) + inner, SchedulerMessage)
