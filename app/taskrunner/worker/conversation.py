"""One Work stream, from Hello to its end."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from grpclib.client import Stream, StreamStreamMethod

from taskrunner.kit.trace import Tracer
from taskrunner.settings import Settings
from taskrunner.wire.channel import open_channel
from taskrunner.wire.codec import Codec
from taskrunner.wire.pb.taskrunner.v1 import Goodbye, SchedulerMessage, Welcome, WorkerMessage
from taskrunner.wire.tracing import calling
from taskrunner.worker.places import Place
from taskrunner.worker.session import Session

METHOD = "/taskrunner.v1.Scheduler/Work"
HANDSHAKE = 5.0  # seconds from the first byte to Welcome
SILENT_BEATS = 3  # a scheduler that says nothing for so long hangs, or the network does: its worker goes elsewhere
LAST_WORDS = 1.0  # seconds that a scheduler has to end a stream that we leave

Work = Stream[WorkerMessage, SchedulerMessage]


class Parted(Exception):
    """The stream ended as it should."""


class Conversation:
    """``welcomed`` is called once a scheduler has accepted the Hello. grpclib's streams know no timeouts: they are all here."""

    def __init__(self, session: Session, hello: WorkerMessage, *, settings: Settings, welcomed: Callable[[Welcome], None]) -> None:
        self._session = session
        self._hello = hello
        self._settings = settings
        self._send_within = settings.lease / 3
        self._welcomed = welcomed
        self._reason: str | None = None  # why we leave
        self._patience: asyncio.Timeout | None = None
        self._beat = HANDSHAKE  # seconds between two signs of life
        self._heard = 0  # messages

    async def hold(self, place: Place) -> None:
        """Talk until the stream ends: raises Parted or what broke it, in a group."""
        async with (
            open_channel(place.host, place.port, self._settings, name=place.name, codec=Codec()) as channel,
            calling(channel, Tracer() if self._settings.traces else None),
            StreamStreamMethod(channel, METHOD, WorkerMessage, SchedulerMessage).open() as stream,
            asyncio.TaskGroup() as group,  # tasks of their own: grpclib cancels those that use a stream which breaks
        ):
            group.create_task(self._read(stream, group), name="work reader")

    def leave(self, reason: str) -> None:
        """Say Goodbye, hear what is still on its way, and part."""
        if self._reason is None:
            self._reason = reason
            self._session.wake.set()
            self._cut_after(LAST_WORDS)

    def drop(self, reason: str) -> None:
        """Part at once."""
        self._reason = reason
        self._cut_after(0)

    def _cut_after(self, seconds: float) -> None:
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _read(self, stream: Work, group: asyncio.TaskGroup) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE) as self._patience:
                await self._shake_hands(stream)
                self._patience.reschedule(None)
                if self._reason is not None:
                    self._cut_after(LAST_WORDS)
                watch = group.create_task(self._watch(), name="work watch")
                writer = group.create_task(self._write(stream), name="work writer")
                while (message := await stream.recv_message()) is not None:
                    self._heard += 1
                    if message.goodbye is not None:
                        self.leave(message.goodbye.reason or "the scheduler stops")
                    else:
                        self._session.receive(message)
        except TimeoutError:
            if self._reason is None:
                raise TimeoutError(f"no Welcome within {HANDSHAKE:g} seconds") from None
            raise Parted(self._reason) from None
        finally:
            self._patience = None
        if self._reason is None:
            writer.cancel()
            watch.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await stream.end()
                    await stream.recv_trailing_metadata()  # raises what the scheduler had to say
        raise Parted(self._reason or "the scheduler ended the stream")

    async def _watch(self) -> None:
        """Raise TimeoutError when nothing is heard for too long; not when it was our own loop that did not listen."""
        while self._reason is None:
            heard = self._heard
            await asyncio.sleep(SILENT_BEATS * self._beat)
            if self._heard == heard:
                await asyncio.sleep(self._beat / 2)
            if self._heard == heard and self._reason is None:
                raise TimeoutError("the scheduler is silent")

    async def _shake_hands(self, stream: Work) -> None:
        sent = time.monotonic()
        await stream.send_message(self._hello)
        message = await stream.recv_message()
        if self._reason is not None:
            raise Parted(self._reason)  # the session that said Hello may be over by now
        if message is None or message.welcome is None:
            raise EOFError("the scheduler did not begin with Welcome")
        if not self._session.welcomed(message.welcome, sent):
            raise Parted("the session is over")
        self._beat = message.welcome.beat or self._beat
        self._welcomed(message.welcome)

    async def _write(self, stream: Work) -> None:
        wake = self._session.wake
        while self._reason is None:
            for message in self._session.outgoing():
                await self._send(stream, message)
            if self._reason is None:
                await wake.wait()
            wake.clear()
        if not self._session.parted or self._session.drained:
            await self._send(stream, WorkerMessage(goodbye=Goodbye(reason=self._reason, last=self._session.drained)))
        await stream.end()

    async def _send(self, stream: Work, message: WorkerMessage) -> None:
        try:
            async with asyncio.timeout(self._send_within):
                await stream.send_message(message)
        except TimeoutError:
            raise TimeoutError(f"the scheduler did not take a message within {self._send_within:g} seconds") from None
