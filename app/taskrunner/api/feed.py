"""Who listens to events: one poller for all of them, and none while nobody listens. A listener that cannot keep up is dropped.

A page that only shows what goes on wants a sample: while nobody wants more, a look costs the same however much happens.
"""

import asyncio
import base64
import binascii
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from taskrunner.api.documents import moment, redacted
from taskrunner.api.filters import EventQuery
from taskrunner.domain.errors import TaskrunnerError, Unavailable
from taskrunner.domain.lifecycle import FINISHED
from taskrunner.store.events import Events, Happened, Place

TICK = 0.2  # seconds between two looks at what finished
SAMPLE = 1.0  # seconds between two looks at what lives
SUMMARY = 5.0
PAGE = 2_000
SAMPLED = 500
GLIMPSE = 50  # events of each kind in a look, for those who want a sample
BUFFER = 1 << 20  # bytes that may wait for one listener
MOST = 500  # listeners
NIL = UUID(int=0)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = struct.Struct(">q16s")


def cursor_of(place: Place) -> str:
    """A place as an event's id; opaque to clients."""
    return base64.urlsafe_b64encode(_CURSOR.pack((place.at - EPOCH) // timedelta(microseconds=1), place.id.bytes)).decode()


def place_of(cursor: str) -> Place | None:
    """The place that an event's id names; None for what is none."""
    try:
        micros, id_ = _CURSOR.unpack(base64.b64decode(cursor, altchars=b"-_", validate=True))
        return Place(EPOCH + timedelta(microseconds=micros), UUID(bytes=id_))
    except (binascii.Error, ValueError, struct.error, OverflowError):
        return None


def frame(one: Happened, *, payloads: bool, sample: bool = False) -> bytes:
    """The event as it is sent: finished ones have an id from which a stream goes on, unless they are a ``sample``.

    Without ``payloads`` what is in the task is null.
    """
    document = asdict(one) if payloads else redacted(asdict(one))
    document |= {"created_at": moment(one.created_at), "updated_at": moment(one.updated_at)}
    if one.finished_at is None:
        return b"event: live\ndata: " + orjson.dumps(document, option=orjson.OPT_UTC_Z) + b"\n\n"
    document["finished_at"] = moment(one.finished_at)
    head = "" if sample else f"id: {cursor_of(Place(one.finished_at, one.id))}\n"
    return f"{head}event: finished\ndata: ".encode() + orjson.dumps(document, option=orjson.OPT_UTC_Z) + b"\n\n"


class Listener:
    """One stream: what it wants, and what waits to be sent to it."""

    def __init__(self, query: EventQuery, *, payloads: bool) -> None:
        self._query = query
        self.payloads = payloads  # whether it may see what is in a task
        self.sample = query.sample
        self._tags = frozenset(query.tag)
        self._waiting: list[bytes] = []
        self._size = 0
        self._bell = asyncio.Event()
        self.over = False
        self.live = not query.status or bool(set(query.status) - FINISHED)

    def wants(self, one: Happened) -> bool:
        """Whether the event fits its filters."""
        query = self._query
        return (
            (not query.status or one.status in query.status)
            and (query.task_type is None or one.task_type == query.task_type)
            and (query.queue is None or one.queue == query.queue)
            and self._tags <= set(one.tags)
        )

    def offer(self, data: bytes) -> None:
        """Something to send. Without room for it the listener is dropped; it may come back and go on where it was."""
        if self.over or not data:
            return
        if self._size + len(data) > BUFFER:
            self.end()
            return
        self._waiting.append(data)
        self._size += len(data)
        self._bell.set()

    def end(self) -> None:
        """Nothing more is sent."""
        self.over = True
        self._bell.set()

    async def next(self, seconds: float) -> bytes:
        """What waits, or nothing after ``seconds``, or when it is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return b""
        self._bell.clear()
        data, self._waiting, self._size = b"".join(self._waiting), [], 0
        return data


class Feed:
    """The poller. Somebody must :meth:`run` it."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._listeners: set[Listener] = set()
        self._someone = asyncio.Event()
        self._place: Place | None = None
        self._sample: dict[UUID, tuple[object, ...]] | None = None
        self._sample_at = self._summary_at = 0.0
        self._closed = False

    @asynccontextmanager
    async def listening(self, query: EventQuery, *, payloads: bool) -> AsyncIterator[tuple[Listener, Place]]:
        """A listener to all that happens from now on, and the place where it begins. Raises Unavailable when there are too many."""
        if self._closed or len(self._listeners) >= MOST:
            raise Unavailable("the service is stopping" if self._closed else f"{MOST} streams of events are open already: ask again later")
        listener = Listener(query, payloads=payloads)
        self._listeners.add(listener)
        self._someone.set()
        try:
            if self._place is None:
                horizon = await self._events.horizon()
                self._place = self._place or Place(horizon, NIL)
            yield listener, self._place
        finally:
            self._listeners.discard(listener)

    async def missed(self, listener: Listener, since: Place, until: Place) -> AsyncIterator[bytes]:
        """What finished between two places, for this listener; an event at the end of it may come again."""
        while since < until and not listener.over:
            page = await self._events.finished(since, until.at + timedelta(microseconds=1), limit=PAGE)
            yield b"".join(frame(one, payloads=listener.payloads) for one in page if listener.wants(one))
            if len(page) < PAGE:
                return
            since = _place(page[-1])

    async def run(self) -> None:
        """Look and tell, until cancelled. It rests for at least as long as it looked."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._someone.wait()
                began = loop.time()
                with suppress(TaskrunnerError):  # the database is away: nothing is lost, the next look begins at the same place
                    await self.run_once(began)
                if not self._listeners:
                    await self._rest()
                await asyncio.sleep(max(TICK if self._in_full else SAMPLE, loop.time() - began))
        finally:
            await self._events.close()

    async def run_once(self, now: float) -> None:
        """One look at what finished, and once a second one at what lives."""
        if self._place is None:
            return
        horizon = await self._events.horizon()
        if horizon <= self._place.at:
            return
        if now >= self._summary_at:
            self._summary_at = now + SUMMARY
            await self._events.summarize(self._place.at)
        limit = PAGE if self._in_full else GLIMPSE
        page = await self._events.finished(self._place, horizon, limit=limit)
        self._tell(page)
        # What a sample leaves out is skipped, unless somebody came meanwhile who wants all.
        self._place = _place(page[-1]) if len(page) == limit and self._in_full else Place(horizon, NIL)
        if now >= self._sample_at and any(listener.live for listener in self._listeners):
            self._sample_at = now + SAMPLE
            await self._look_at_the_living()

    @property
    def _in_full(self) -> bool:
        return any(not listener.sample for listener in self._listeners)

    async def _look_at_the_living(self) -> None:
        found = await self._events.live(NIL, limit=SAMPLED if self._in_full else GLIMPSE)
        before = self._sample
        self._sample = {one.id: (one.status, one.attempt, one.progress, one.progress_message, one.updated_at) for one in found}
        if before is not None:
            self._tell([one for one in found if before.get(one.id) != self._sample[one.id]])

    def _tell(self, happened: Sequence[Happened]) -> None:
        frames: dict[tuple[UUID, bool, bool], bytes] = {}
        for listener in self._listeners:
            data = []
            payloads, sample = listener.payloads, listener.sample
            for one in happened[:GLIMPSE] if sample else happened:
                if listener.wants(one):
                    key = one.id, payloads, sample
                    data.append(frames.get(key) or frames.setdefault(key, frame(one, payloads=payloads, sample=sample)))
            listener.offer(b"".join(data))

    async def _rest(self) -> None:
        self._someone.clear()
        self._place = self._sample = None
        await self._events.close()

    def close(self) -> None:
        """End every stream; later ones are refused."""
        self._closed = True
        for listener in self._listeners:
            listener.end()


def _place(one: Happened) -> Place:
    assert one.finished_at is not None  # it was found by it
    return Place(one.finished_at, one.id)
