"""A whole worker in a test, and what one says to it and hears of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from grpclib.client import Channel
from worker.bench import read_outcomes, tasks
from worker.peer import Line, Peer

from taskrunner.settings import Settings
from taskrunner.wire.columns import split
from taskrunner.wire.pb.taskrunner.v1 import DescribeReply, WorkerStub
from taskrunner.worker.role import Room, serve

T = TypeVar("T")


def settings(**more: Any) -> Settings:
    values = {"handlers": "worker.wire_tasks", "worker_port": 0, "grace": 1, "slots": 4, "lease": 10, **more}
    return Settings(**values)


def worker(*peers: Peer, **more: Any) -> AbstractAsyncContextManager[Room]:
    return serve(settings(**more), tuple(peer.address for peer in peers))


async def outcomes(line: Line, ids: list[bytes]) -> dict[bytes, Any]:
    """The outcomes of ``ids``, once they are all on the line."""

    def found() -> dict[bytes, Any]:
        return {id_: ended for message in line.got if message.outcomes for id_, ended in read_outcomes(message).items()}

    await line.until(lambda: set(ids) <= found().keys())
    return found()


async def give(line: Line, task_type: str, *payloads: Any, **more: Any) -> list[bytes]:
    message = tasks(task_type, payloads, **more)
    await line.give(message)
    return split(message.ids, 16)


async def describe(room: Room) -> DescribeReply:
    host, _, port = room.address.rpartition(":")
    async with Channel(host, int(port)) as channel:
        return await WorkerStub(channel).describe(timeout=5)


async def until(ask: Callable[[], Awaitable[T]], true: Callable[[T], bool], seconds: float = 10) -> T:
    async with asyncio.timeout(seconds):
        said = await ask()
        while not true(said):
            await asyncio.sleep(0.01)
            said = await ask()
    return said
