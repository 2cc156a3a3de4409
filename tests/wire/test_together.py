"""Several messages in one write are the same messages for whoever reads them."""

from collections.abc import Iterator
from typing import Any

import pytest
from grpclib.client import Stream as ClientStream
from grpclib.client import StreamStreamMethod
from grpclib.const import Cardinality, Handler
from grpclib.testing import ChannelFor

from taskrunner.wire.codec import Codec
from taskrunner.wire.pb.taskrunner.v1 import SchedulerMessage, Tasks, Welcome, WorkerMessage
from taskrunner.wire.together import ENOUGH, send_together

METHOD = "/taskrunner.v1.Scheduler/Work"


def tasks(queue: str, *payloads: bytes) -> SchedulerMessage:
    return SchedulerMessage(tasks=Tasks(task_type="t", queue=queue, ids=bytes(16 * len(payloads)), payloads=[*payloads]))


class Sender:
    """Serves Work: a Welcome, then all messages together, as often as it takes."""

    def __init__(self, messages: list[SchedulerMessage]) -> None:
        self.messages = messages

    def __mapping__(self) -> dict[str, Handler]:
        return {METHOD: Handler(self.work, Cardinality.STREAM_STREAM, WorkerMessage, SchedulerMessage)}

    async def work(self, stream: Any) -> None:
        await stream.send_message(SchedulerMessage(welcome=Welcome(protocol=1)))
        left = iter(self.messages)
        for first in left:

            def rest(first: SchedulerMessage = first) -> Iterator[SchedulerMessage]:
                yield first
                yield from left

            await send_together(stream, rest(), SchedulerMessage)


async def heard(messages: list[SchedulerMessage]) -> list[SchedulerMessage]:
    async with ChannelFor([Sender(messages)], codec=Codec()) as channel:
        stream: ClientStream[WorkerMessage, SchedulerMessage]
        async with StreamStreamMethod(channel, METHOD, WorkerMessage, SchedulerMessage).open() as stream:
            await stream.send_message(WorkerMessage(), end=True)
            assert (await stream.recv_message()) == SchedulerMessage(welcome=Welcome(protocol=1))
            return [message async for message in stream]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each write of the Sender, whatever else speaks gRPC in this process."""
    sizes: list[int] = []
    work = Sender.work

    async def watched(self: Sender, stream: Any) -> None:
        send = stream._stream.send_data

        async def noted(data: bytes, end_stream: bool = False) -> None:
            sizes.append(len(data))
            await send(data, end_stream)

        stream._stream.send_data = noted
        await work(self, stream)

    monkeypatch.setattr(Sender, "work", watched)
    return sizes


async def test_small_messages_leave_in_one_write(writes: list[int]) -> None:
    messages = [tasks("q1", b"1", b"{}"), SchedulerMessage(), tasks("q2", b"[]"), tasks("q3", b"x" * 40_000)]
    assert await heard(messages) == messages
    assert len(writes) == 2  # the Welcome, and all the rest


async def test_a_write_ends_with_the_message_that_makes_it_large(writes: list[int]) -> None:
    messages = [tasks("q", b"x" * (ENOUGH // 2 - 1_000))] * 5
    assert await heard(messages) == messages
    assert len(writes) == 1 + 2  # the Welcome, three together, then two
    assert max(writes) < 2 * ENOUGH


async def test_nothing_is_no_write(writes: list[int]) -> None:
    assert await heard([]) == []
    assert len(writes) == 1
