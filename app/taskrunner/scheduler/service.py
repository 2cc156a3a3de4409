"""The gRPC service that workers talk to: two streams a session, one that carries tasks and one that keeps the lease."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import structlog
from grpclib import GRPCError
from grpclib import Status as Code
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import StreamTerminatedError
from grpclib.server import Stream

from taskrunner.domain.errors import TaskrunnerError
from taskrunner.domain.lanes import Serves
from taskrunner.domain.task import LONGEST_TIMEOUT, MOST_ATTEMPTS
from taskrunner.scheduler.dispatch import Dispatcher
from taskrunner.scheduler.leases import Leases
from taskrunner.scheduler.roster import Roster, Session
from taskrunner.scheduler.settler import Settler
from taskrunner.settings import Settings
from taskrunner.store.sessions import Accepted, Introduction, Sessions
from taskrunner.wire import columns
from taskrunner.wire.codec import BadMessage
from taskrunner.wire.pb.taskrunner.v1 import BeatReply, BeatRequest, Hello, SchedulerMessage, Welcome, WorkerMessage
from taskrunner.wire.together import send_together

log = structlog.get_logger()
PROTOCOL = 1
MOST_SLOTS = 2**31 - 1  # which is what the table of sessions can hold
FIRST_MESSAGE = 5.0  # seconds for a stream to say who it is

WorkStream = Stream[WorkerMessage, SchedulerMessage]
BeatStream = Stream[BeatRequest, BeatReply]


class SchedulerService:
    """Serves ``taskrunner.v1.Scheduler``. Each Work stream has one reader and one writer."""

    def __init__(  # noqa: PLR0913 — the cast of the scheduler, all by keyword
        self, *, settings: Settings, sessions: Sessions, roster: Roster, dispatcher: Dispatcher, settler: Settler, leases: Leases
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._roster = roster
        self._dispatcher = dispatcher
        self._settler = settler
        self._leases = leases
        self.stopping = False
        self.empty = asyncio.Event()
        self.empty.set()

    def __mapping__(self) -> dict[str, Handler]:
        """What grpclib serves."""
        return {
            "/taskrunner.v1.Scheduler/Work": Handler(self.work, Cardinality.STREAM_STREAM, WorkerMessage, SchedulerMessage),
            "/taskrunner.v1.Scheduler/Beat": Handler(self.beat, Cardinality.STREAM_STREAM, BeatRequest, BeatReply),
        }

    async def work(self, stream: WorkStream) -> None:
        """A Work stream, from Hello to its end."""
        try:
            async with asyncio.timeout(FIRST_MESSAGE):
                first = await stream.recv_message()
        except TimeoutError:
            raise GRPCError(Code.DEADLINE_EXCEEDED, f"no Hello within {FIRST_MESSAGE:g} seconds") from None
        session = await self._welcome(stream, first.hello if first else None)
        if session is None:
            return
        self._roster.add(session)
        self.empty.clear()
        self._dispatcher.wake()
        log.info("worker connected", session=str(session.id), worker=session.name, stream=session.stream)
        refused = ""
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(session, stream), name=f"writer {session.name}")
                await self._read(session, stream)
                writer.cancel()
        except* (StreamTerminatedError, ConnectionError, TimeoutError) as errors:
            log.info("worker's stream broke", session=str(session.id), worker=session.name, error=str(errors.exceptions[0]) or "timed out")
        except* ValueError as errors:
            refused = str(errors.exceptions[0])
            log.warning("worker's stream is not understood", session=str(session.id), worker=session.name, error=refused)
        finally:
            self._leave(session)
        if refused:
            raise GRPCError(Code.INVALID_ARGUMENT, refused)

    async def _welcome(self, stream: WorkStream, hello: Hello | None) -> Session | None:
        if hello is None:
            raise GRPCError(Code.INVALID_ARGUMENT, "the first message of a Work stream is Hello")
        if hello.protocol != PROTOCOL:
            raise GRPCError(
                Code.FAILED_PRECONDITION,
                f"this scheduler speaks protocol {PROTOCOL}, the worker speaks {hello.protocol}: upgrade the older one",
            )
        if self.stopping:
            raise GRPCError(Code.UNAVAILABLE, "this scheduler is stopping: go on with another one")
        try:
            who = _introduction(hello)
            accepted = await self._accept(who)
        except ValueError as error:
            raise GRPCError(Code.INVALID_ARGUMENT, f"Hello is not understood: {error}") from None
        except TaskrunnerError as error:
            raise GRPCError(Code.UNAVAILABLE, str(error)) from None
        answer = Welcome(protocol=PROTOCOL, beat=self._settings.beat, lease=self._settings.lease)
        if accepted is None:
            answer.over = True
            await stream.send_message(SchedulerMessage(welcome=answer))
            return None
        answer.lost_ids, answer.lost_epochs = accepted.lost_ids, accepted.lost_epochs
        try:
            await stream.send_message(SchedulerMessage(welcome=answer))
        except BaseException:
            self._leases.lost_stream(who.session, accepted.stream)
            raise
        return self._session(hello, who, accepted)

    async def _accept(self, who: Introduction) -> Accepted | None:
        """Take the session on. When its stream breaks meanwhile, that is noted under the number that it would have had."""
        hello = asyncio.ensure_future(self._sessions.hello(who, lease=self._settings.lease))
        try:
            return await asyncio.shield(hello)
        except asyncio.CancelledError:
            with contextlib.suppress(TaskrunnerError):
                if (accepted := await hello) is not None:
                    self._leases.lost_stream(who.session, accepted.stream)
            raise

    def _session(self, hello: Hello, who: Introduction, accepted: Accepted) -> Session:
        capacity = hello.capacity
        held = (len(who.ids) - len(accepted.lost_ids)) // columns.ID
        return Session(
            id=who.session,
            stream=accepted.stream,
            name=who.name,
            serves=_serves(hello, self._settings),
            slots=capacity.slots if capacity else 0,
            prefetch=capacity.prefetch if capacity else 0,
            outstanding=held,
        )

    async def _read(self, session: Session, stream: WorkStream) -> None:
        while (message := await stream.recv_message()) is not None:
            await self._settler.room.wait()
            if (outcomes := message.outcomes) is not None:
                session.outstanding -= self._settler.report(session, outcomes)
                self._dispatcher.wake()
            elif (started := message.started) is not None:
                self._settler.started(session, started)
            elif (progress := message.progress) is not None:
                self._settler.progress(session, progress)
            elif (capacity := message.capacity) is not None:
                session.slots, session.prefetch = capacity.slots, capacity.prefetch
                self._dispatcher.wake()
            elif (goodbye := message.goodbye) is not None:
                session.taking = False
                session.ends |= goodbye.last
                session.wake.set()

    async def _write(self, session: Session, stream: WorkStream) -> None:
        """The stream's only writer. What cannot be sent in a third of a lease ends the stream.

        A beat without any is filled by an empty one, so that the worker can tell an idle scheduler from one that hangs.
        """
        loop = asyncio.get_running_loop()
        while True:
            if not session.wake.is_set():
                alive = loop.call_later(self._settings.beat, session.sign_of_life)
                await session.wake.wait()
                alive.cancel()
            session.wake.clear()
            while session.outbox:
                async with asyncio.timeout(self._settings.lease / 3):
                    await send_together(stream, self._outgoing(session, loop.time()), SchedulerMessage)

    def _outgoing(self, session: Session, now: float) -> Iterator[SchedulerMessage]:
        """What is in the outbox; a claim that comes too late is undone instead."""
        while session.outbox:
            parcel = session.outbox.popleft()
            if parcel.claimed and (not session.taking or now - parcel.claimed_at > self._settings.lease / 2):
                self._leases.undelivered(parcel.claimed)
                session.outstanding -= parcel.claimed.n
            else:
                yield parcel.message

    def _leave(self, session: Session) -> None:
        """The stream is over: undo what was not sent, and say how the session stands."""
        self._roster.remove(session)
        for parcel in session.outbox:
            if parcel.claimed:
                self._leases.undelivered(parcel.claimed)
        session.outbox.clear()
        if session.ends:
            self._leases.closed(session.id, session.stream)
        else:
            self._leases.lost_stream(session.id, session.stream)
        if not len(self._roster):
            self.empty.set()

    async def beat(self, stream: BeatStream) -> None:
        """A Beat stream: each request is answered once the lease is renewed."""
        session: UUID | None = None
        first = True
        try:
            while (request := await self._heard(stream, silent=session is None)) is not None:
                session = UUID(bytes=request.session)
                self._leases.beating[session] += first
                first = False
                here = self._roster.get(session)
                if here is not None and here.hear(request.lag):
                    self._dispatcher.wake()
                alive = await self._leases.beat(session, request.lag)
                ids, epochs = self._leases.cancels.get(session, (b"", b""))
                reply = BeatReply(over=not alive, cancel_ids=ids, cancel_epochs=epochs, drain=session in self._leases.draining)
                async with asyncio.timeout(self._settings.lease / 3):
                    await stream.send_message(reply)
        except (StreamTerminatedError, ConnectionError, TimeoutError):
            return
        except BadMessage:
            raise
        except ValueError:
            raise GRPCError(Code.INVALID_ARGUMENT, "a session is 16 bytes") from None
        finally:
            if session is not None:
                self._leases.lost_beat(session)

    async def _heard(self, stream: BeatStream, *, silent: bool) -> BeatRequest | None:
        """The next beat. Raises TimeoutError for a stream that begins without one, or whose session has been silent for a lease."""
        async with asyncio.timeout(FIRST_MESSAGE if silent else self._settings.lease):
            return await stream.recv_message()

    async def stop(self, grace: float) -> None:
        """Take nobody on any more, send everybody elsewhere, and wait until they have gone, for ``grace`` seconds at most."""
        self.stopping = True
        for session in self._roster:
            session.dismiss("this scheduler stops")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self.empty.wait()


def _introduction(hello: Hello) -> Introduction:
    if len(hello.ids) // columns.ID != len(hello.epochs) // columns.EPOCH:
        raise ValueError("ids and epochs have different lengths")
    if any(len(column) not in (0, len(hello.task_types)) for column in (hello.max_attempts, hello.timeouts)):
        raise ValueError("task_types and their defaults have different lengths")
    if not all(0 <= attempts <= MOST_ATTEMPTS for attempts in hello.max_attempts):  # a claim writes them into tasks
        raise ValueError(f"max_attempts are 1 to {MOST_ATTEMPTS}, or 0 for none")
    if not all(0 <= timeout <= LONGEST_TIMEOUT for timeout in hello.timeouts):
        raise ValueError(f"timeouts are up to {LONGEST_TIMEOUT} seconds, or 0 for none")
    if hello.capacity and hello.capacity.slots > MOST_SLOTS:
        raise ValueError(f"slots are {MOST_SLOTS} at most")
    return Introduction(
        session=UUID(bytes=hello.session),
        stream=hello.stream or None,
        resumed=hello.resumed,
        name=hello.name[:200],
        version=hello.version[:100],
        address=hello.address[:200],
        task_types=tuple(hello.task_types),
        queues=tuple(hello.queues),
        slots=hello.capacity.slots if hello.capacity else 0,
        ids=hello.ids,
        epochs=hello.epochs,
    )


def _serves(hello: Hello, settings: Settings) -> Serves:
    def default(column: list[Any], at: int, otherwise: Any) -> Any:
        return (column[at] if column else 0) or otherwise

    defaults = tuple(
        (name, default(hello.max_attempts, n, settings.max_attempts), default(hello.timeouts, n, settings.timeout))
        for n, name in sorted(enumerate(hello.task_types), key=lambda pair: pair[1])
    )
    return Serves(defaults, None if "*" in hello.queues else frozenset(hello.queues))
