"""A worker by hand: a real grpclib client that speaks the protocol one message at a time, so that a test can stop anywhere."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from grpclib.client import Channel, Stream, StreamStreamMethod
from grpclib.exceptions import StreamTerminatedError

from taskrunner.scheduler.role import serve
from taskrunner.scheduler.roster import Roster
from taskrunner.settings import Settings
from taskrunner.store.tasks import Store, open_store
from taskrunner.wire.columns import EPOCH, ID, split
from taskrunner.wire.pb.taskrunner.v1 import (
    BeatReply,
    BeatRequest,
    Capacity,
    Goodbye,
    Hello,
    Outcome,
    Outcomes,
    SchedulerMessage,
    Settled,
    Tasks,
    Welcome,
    WorkerMessage,
)

QUICK = {"lease": 1.5, "scheduler_port": 0, "cancel_grace": 30}


@dataclass(slots=True)
class Workman:
    """One session. ``held`` is what it would name in a Hello: pairs of (id, epoch) as they came. ``streams`` are the Hellos it has said."""

    session: UUID = field(default_factory=uuid4)
    slots: int = 10
    prefetch: int = 0
    types: tuple[str, ...] = ("t",)
    held: dict[bytes, bytes] = field(default_factory=dict)
    resumed: bool = False
    streams: int = 0
    work: Stream[WorkerMessage, SchedulerMessage] = field(init=False)
    pulse: Stream[BeatRequest, BeatReply] | None = None
    _lines: dict[str, Channel] = field(default_factory=dict)
    _kept: list[SchedulerMessage] = field(default_factory=list)
    _batch: int = 0

    async def connect(self, address: str, **hello: Any) -> Welcome:
        """Open a Work stream and say Hello."""
        await self.say(address, self.hello(**hello))
        welcome = (await self.hear()).welcome
        assert welcome is not None
        self.resumed = True
        return welcome

    def hello(self, **fields: Any) -> WorkerMessage:
        self.streams += 1
        usual = {
            "protocol": 1,
            "stream": self.streams,
            "session": self.session.bytes,
            "resumed": self.resumed,
            "name": "workman",
            "task_types": [*self.types],
        }
        usual |= {"queues": ["*"], "capacity": Capacity(slots=self.slots, prefetch=self.prefetch)}
        usual |= {"ids": b"".join(self.held), "epochs": b"".join(self.held.values())}
        return WorkerMessage(hello=Hello(**{**usual, **fields}))

    async def say(self, address: str, first: WorkerMessage) -> None:
        """Open a Work stream that begins with ``first``."""
        await self.open(address)
        await self.work.send_message(first)

    async def open(self, address: str) -> None:
        """Open a Work stream and say nothing."""
        method = StreamStreamMethod(self._line("work", address), "/taskrunner.v1.Scheduler/Work", WorkerMessage, SchedulerMessage)
        self.work = await method.open().__aenter__()  # never left in good order: the connection is cut

    async def hear(self) -> SchedulerMessage:
        try:
            async with asyncio.timeout(10):
                message = await self.work.recv_message()
        except StreamTerminatedError as error:
            await self.work.__aexit__(type(error), error, error.__traceback__)  # raises what the scheduler had to say, if anything
            raise
        if message is None:
            await self.work.recv_trailing_metadata()  # raises what the scheduler had to say
            raise EOFError
        return message

    async def hear_a(self, kind: str) -> Any:
        """The next message of that kind; others that come before it are kept."""
        for message in self._kept:
            if (found := getattr(message, kind)) is not None:
                self._kept.remove(message)
                return found
        while (found := getattr(message := await self.hear(), kind)) is None:
            self._kept.append(message)
        return found

    async def take(self, n: int = 1) -> Tasks:
        """``n`` tasks, held from now on; the last message of them."""
        got = 0
        while got < n:
            tasks: Tasks = await self.hear_a("tasks")
            ids = split(tasks.ids, ID)
            self.held |= dict(zip(ids, split(tasks.epochs, EPOCH), strict=True))
            got += len(ids)
        assert got == n
        return tasks

    async def report(self, outcome: Outcome | int, ids: list[bytes] | None = None, **columns: Any) -> Settled:
        """Say how these ended (everything held, unless given), and wait until it is settled."""
        pairs = {id_: self.held[id_] for id_ in (ids or [*self.held])}
        self._batch += 1
        outcomes = Outcomes(batch=self._batch, outcome=Outcome(outcome), ids=b"".join(pairs), epochs=b"".join(pairs.values()), **columns)
        await self.work.send_message(WorkerMessage(outcomes=outcomes))
        settled: Settled = await self.hear_a("settled")
        assert settled.batches == [self._batch]
        for id_ in pairs:
            del self.held[id_]
        return settled

    async def beat(self, address: str, lag: float = 0.0) -> BeatReply:
        if self.pulse is None:
            method = StreamStreamMethod(self._line("beat", address), "/taskrunner.v1.Scheduler/Beat", BeatRequest, BeatReply)
            self.pulse = await method.open().__aenter__()
        async with asyncio.timeout(10):
            await self.pulse.send_message(BeatRequest(session=self.session.bytes, lag=lag))
            reply = await self.pulse.recv_message()
        assert reply is not None
        return reply

    async def goodbye(self, *, last: bool) -> None:
        """Take nothing more on this stream; with ``last`` on no other either."""
        await self.work.send_message(WorkerMessage(goodbye=Goodbye(reason="done", last=last)))
        await self.work.end()

    def cut(self, *names: str) -> None:
        """Close connections as kill -9 does; without names all of them."""
        for name in names or [*self._lines]:
            self._lines.pop(name).close()
            if name == "beat":
                self.pulse = None

    def _line(self, name: str, address: str) -> Channel:
        if name in self._lines:
            self.cut(name)
        host, _, port = address.rpartition(":")
        self._lines[name] = Channel(host, int(port))
        return self._lines[name]


@dataclass(slots=True)
class House:
    """Schedulers on one database."""

    store: Store
    dsn: str
    _stack: AsyncExitStack
    near: list[Store] = field(default_factory=list)  # those of the schedulers, as an API in the same process has them
    rosters: list[Roster] = field(default_factory=list)  # and who is connected there

    async def scheduler(self, **settings: Any) -> tuple[str, Callable[[], Any]]:
        """One more scheduler, with a pool of its own: its address, and how to stop it."""
        stack = AsyncExitStack()
        quick = Settings(_env_file=None, **{**QUICK, **settings})
        store = await stack.enter_async_context(open_store(self.dsn, quick))
        running = await stack.enter_async_context(serve(quick, store))
        self.near.append(store)
        self.rosters.append(running.office.roster)
        self._stack.push_async_callback(stack.aclose)
        return running.address, stack.aclose

    def man(self, **fields: Any) -> Workman:
        """A worker that has said nothing yet."""
        man = Workman(**fields)
        self._stack.callback(man.cut)
        return man

    async def workman(self, address: str, **fields: Any) -> Workman:
        """A worker that has said Hello and beats."""
        man = self.man(**fields)
        await man.connect(address)
        await man.beat(address)
        return man

    async def statuses(self, ids: list[UUID]) -> list[str]:
        tasks = [await self.store.get(id_) for id_ in ids]
        return [str(task.status) if task else "gone" for task in tasks]


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack, open_store(dsn, Settings(_env_file=None)) as store:
        yield House(store, dsn, stack)
        await stack.aclose()


async def until(true: Callable[[], Any], *, seconds: float = 5.0) -> None:
    """Return when ``await true()`` is true."""
    async with asyncio.timeout(seconds):
        while not await true():
            await asyncio.sleep(0.005)
