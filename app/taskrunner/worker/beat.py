"""Keeps the session alive, whatever the handlers do: on a thread, a loop and a connection of its own, where nothing else runs."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from grpclib.client import Stream, StreamStreamMethod
from grpclib.exceptions import StreamTerminatedError

from taskrunner.kit.trace import Tracer
from taskrunner.settings import Settings
from taskrunner.wire.channel import open_channel
from taskrunner.wire.pb.taskrunner.v1 import BeatReply, BeatRequest
from taskrunner.wire.tracing import calling
from taskrunner.worker.attempts import keys
from taskrunner.worker.places import BROKEN, Place, find_places, said
from taskrunner.worker.session import TRUST

log = structlog.get_logger()

METHOD = "/taskrunner.v1.Scheduler/Beat"
ECHO = 0.05  # seconds that the worker's loop has to answer before it counts as late
PARTING = 0.3  # seconds that the last stream has to end
BASE = 0.1  # seconds: the first pause between failed tries


class Served(NamedTuple):
    """Whose beat it is and how often. Seconds."""

    session: bytes
    beat: float
    lease: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearers:
    """Who is told what the beats bring. Called on the worker's loop."""

    renewed: Callable[[bytes, float], None]  # session, trusted until (monotonic)
    cancel: Callable[[bytes, set[bytes]], None]  # session, keys
    over: Callable[[bytes], None]  # session
    drain: Callable[[], None]


class Beat:
    """Made on the worker's loop. Its thread starts with the first ``serve``; ``ended`` is done when it has died."""

    def __init__(self, addresses: Sequence[str], bearers: Bearers, settings: Settings) -> None:
        self._addresses = addresses
        self._settings = settings
        self._bearers = bearers
        self._worker_loop = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self._served: Served | None = None
        self._closed = False
        self._trouble = ""  # what was logged last
        self._last: Place | None = None
        self._again: Place | None = None  # who had answered when the connection broke
        self._probed: float | None = None  # when the worker's loop was asked for a sign and has not given it
        self.ended: asyncio.Future[None] = self._worker_loop.create_future()

    # ── on the worker's loop ────────────────────────────────────────────────────────────────────────────────────────────────

    def serve(self, served: Served) -> None:
        """Beat for that session from now on."""
        if self._loop is None:
            self._served = served
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._main, args=(self._loop,), name="beat", daemon=True).start()
        else:
            self._loop.call_soon_threadsafe(self._turn_to, served)

    async def close(self) -> None:
        """Stop beating and wait a moment for the last word."""
        if self._loop is not None and not self.ended.done():
            self._loop.call_soon_threadsafe(self._stop)
            await asyncio.wait([self.ended], timeout=PARTING)  # it may be waiting for an answer; the thread is a daemon

    def _echo(self) -> None:
        self._probed = None

    # ── on the beat's thread ────────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        trouble: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._run())
        except BaseException as error:  # noqa: BLE001 — whatever it is, the worker must not go on without beats
            trouble = error
        self._tell(self._end, trouble)

    def _turn_to(self, served: Served) -> None:
        if served != self._served:
            self._served = served
            self._bell.set()

    def _stop(self) -> None:
        self._closed = True
        self._bell.set()

    async def _run(self) -> None:
        tries = 0
        while not self._closed:
            served = self._served
            if served is None:
                await self._pause(None)
                continue
            if tries > 1:  # the first try after a break comes at once
                await self._pause(random.uniform(0, min(served.beat, BASE * 2**tries)))  # noqa: S311 — jitter
            tries = 0 if await self._hold(served) else tries + 1

    async def _hold(self, served: Served) -> bool:
        """Beat on one stream until it breaks or is not wanted any more. False when nothing was ever answered."""
        answered = asyncio.Event()
        place = None
        try:
            place = await self._choose()
            async with asyncio.TaskGroup() as group:  # a task of its own: grpclib cancels those that use a stream which breaks
                group.create_task(self._beat(served, place, answered))
        except* BROKEN as broken:
            if (trouble := said(broken)) != self._trouble:
                log.warning("the beat got no answer", scheduler=place and str(place), error=trouble)
            self._trouble = trouble
            self._again = place if answered.is_set() and broken.subgroup((ConnectionError, StreamTerminatedError)) else None
        return answered.is_set()

    async def _choose(self) -> Place:
        """Another scheduler than the last one. After a break first the same: it saw the connection end and counts half a second, while
        another one may hang.
        """
        places = await find_places(self._addresses)
        again, self._again = self._again, None
        self._last = again if again in places else next((one for one in places if one != self._last), places[0])
        return self._last

    async def _beat(self, served: Served, place: Place, answered: asyncio.Event) -> None:
        async with (
            open_channel(place.host, place.port, self._settings, name=place.name) as channel,
            calling(channel, Tracer() if self._settings.traces else None),
            StreamStreamMethod(channel, METHOD, BeatRequest, BeatReply).open() as stream,
        ):
            async with asyncio.timeout(served.beat):  # it connects, and an address that is gone does not even refuse
                await stream.send_request()
            reply = self._receive(stream)
            try:
                while not self._closed and self._served is served:
                    began = time.monotonic()
                    await self._ask(stream, served, reply)
                    answered.set()
                    self._trouble = ""
                    reply = self._receive(stream)  # while we pause, too: a stream that breaks is to be noticed at once
                    if self._served is served:
                        await self._pause(began + served.beat - time.monotonic())
                    if reply.done():
                        await reply
                        raise EOFError("the scheduler ended the stream")
            finally:
                reply.cancel()
            if answered.is_set():
                await _finish(stream)

    def _receive(self, stream: Stream[BeatRequest, BeatReply]) -> asyncio.Task[BeatReply | None]:
        reply = asyncio.ensure_future(stream.recv_message())
        reply.add_done_callback(self._heard)
        return reply

    def _heard(self, reply: asyncio.Task[BeatReply | None]) -> None:
        if not reply.cancelled():
            reply.exception()  # seen, also where it was the sending that failed first
        self._bell.set()

    async def _ask(self, stream: Stream[BeatRequest, BeatReply], served: Served, answer: asyncio.Task[BeatReply | None]) -> None:
        """One beat. Raises TimeoutError when the answer takes longer than a beat."""
        lag = await self._lag(served.beat)
        sent = time.monotonic()
        try:
            async with asyncio.timeout(served.beat):
                await stream.send_message(BeatRequest(session=served.session, lag=lag))
                reply = await answer
        except TimeoutError:
            raise TimeoutError(f"nothing came within {served.beat:g} seconds") from None
        if reply is None:
            raise EOFError("the scheduler ended the stream")
        self._bell.clear()
        if reply.over:
            self._served = None if self._served is served else self._served
            self._tell(self._bearers.over, served.session)
        else:
            self._tell(self._bearers.renewed, served.session, sent + TRUST * served.lease)
        if reply.drain:
            self._tell(self._bearers.drain)
        if reply.cancel_ids:
            self._tell(self._bearers.cancel, served.session, keys(reply.cancel_ids, reply.cancel_epochs))

    async def _lag(self, beat: float) -> float:
        """Seconds by which the worker's loop is late; 0 when it answers promptly."""
        if self._probed is None:
            self._probed = time.monotonic()
            self._tell(self._echo)
        await asyncio.sleep(min(ECHO, beat / 10))
        probed = self._probed
        return 0.0 if probed is None else time.monotonic() - probed

    async def _pause(self, seconds: float | None) -> None:
        """Wait that long, or until there is news."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        self._bell.clear()

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        with suppress(RuntimeError):  # the worker's loop is closed: it is gone, and so are we
            self._worker_loop.call_soon_threadsafe(callback, *args)

    def _end(self, trouble: BaseException | None) -> None:
        if self.ended.done():
            return
        if trouble is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(RuntimeError(f"the beat thread died: {type(trouble).__name__}: {trouble}"))


async def _finish(stream: Stream[BeatRequest, BeatReply]) -> None:
    """End the stream so that the scheduler sees that it was meant."""
    await stream.end()
    try:
        async with asyncio.timeout(ECHO):
            await stream.recv_trailing_metadata()
    except TimeoutError:
        await stream.cancel()
