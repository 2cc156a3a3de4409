"""What a worker holds, and what is said about it on whichever stream is open."""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping
from importlib.metadata import version

import structlog

from taskrunner.sdk import Handler
from taskrunner.settings import Settings
from taskrunner.wire.columns import EPOCH, ID, split
from taskrunner.wire.pb.taskrunner.v1 import Capacity, Goodbye, Hello, SchedulerMessage, Settled, Started, Tasks, Welcome, WorkerMessage
from taskrunner.worker.attempts import keys, unpack
from taskrunner.worker.blocking import Blocking
from taskrunner.worker.execute import RELEASED, Executor
from taskrunner.worker.flow import SLOW, Flow
from taskrunner.worker.outbox import Outbox
from taskrunner.worker.progress import Reporter

log = structlog.get_logger()

PROTOCOL = 1
TRUST = 0.8  # of a lease, counted from when the request was sent that renewed it


class Session:
    """A lease belongs to a session, not to a stream: streams break and are opened again, and what is held here stays.

    ``wake`` is set whenever ``outgoing`` has something to say.
    """

    def __init__(self, *, settings: Settings, handlers: Mapping[str, Handler], group: asyncio.TaskGroup, blocking: Blocking) -> None:
        self._queues = list(settings.queues)
        self.handlers = handlers
        self.id = uuid.uuid4().bytes
        self.wake = asyncio.Event()
        self.outbox = Outbox(self.wake.set)
        self.reporter = Reporter(self.wake.set)
        self.executor = Executor(settings=settings, group=group, outbox=self.outbox, blocking=blocking, reporter=self.reporter)
        self.flow = Flow(executor=self.executor, outbox=self.outbox, wake=self.wake.set)
        self._resumed = False
        self._streams = 0  # so many Hellos were sent
        self._said = (0, 0)  # the capacity, on this stream
        self.parted = False  # Goodbye is said, on this stream

    @property
    def name(self) -> str:
        """The id as people see it."""
        return str(uuid.UUID(bytes=self.id))

    @property
    def drained(self) -> bool:
        """It was stopped, and nothing is held any more: what ends now is the session, and not only a stream."""
        return self.executor.stopped and self.executor.idle and not self.outbox.size

    # ── what it says ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def hello(self, *, name: str, address: str) -> WorkerMessage:
        """The first message on a new stream. The old one is closed by now, so that all it brought is named here."""
        started, finished = self.executor.held(), self.outbox.held()
        handlers = self.handlers.values()
        self._streams += 1
        self._said, self.parted = self.flow.capacity(), False
        slots, prefetch = self._said
        return WorkerMessage(
            hello=Hello(
                protocol=PROTOCOL,
                session=self.id,
                stream=self._streams,
                resumed=self._resumed,
                name=name,
                task_types=list(self.handlers),
                max_attempts=[handler.max_attempts or 0 for handler in handlers],
                timeouts=[handler.timeout or 0.0 for handler in handlers],
                queues=self._queues,
                capacity=Capacity(slots=slots, prefetch=prefetch),
                ids=b"".join(started[0] + finished[0]),
                epochs=b"".join(started[1] + finished[1]),
                address=address,
                version=version("taskrunner"),
            )
        )

    def outgoing(self) -> Iterator[WorkerMessage]:
        """What there is to say on the open stream. The next one is made when the one before is sent, so that batches fill meanwhile."""
        self.flow.note_end()
        if (capacity := self.flow.capacity()) != self._said:
            self._said = capacity
            yield WorkerMessage(capacity=Capacity(slots=capacity[0], prefetch=capacity[1]))
        if self.executor.stopped and not self.parted:
            self.parted = True
            yield WorkerMessage(goodbye=Goodbye(reason="the worker stops"))
        if running := self.executor.floor.take_untold(time.monotonic() - SLOW):
            ids, epochs = b"".join(one.id for one in running), b"".join(one.epoch for one in running)
            yield WorkerMessage(started=Started(ids=ids, epochs=epochs))
        if (progress := self.reporter.take(self.executor.floor.running)) is not None:
            yield WorkerMessage(progress=progress)
        while (message := self.outbox.next()) is not None:
            yield message

    # ── what it is told ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def welcomed(self, welcome: Welcome, sent: float) -> bool:
        """The answer to the Hello that was sent at the monotonic time ``sent``. False when the session is over; then a new one has begun.

        Raises ValueError for a scheduler of another protocol.
        """
        if welcome.protocol != PROTOCOL:
            raise ValueError(f"the scheduler speaks protocol {welcome.protocol} and this worker {PROTOCOL}: upgrade the older one")
        if welcome.over:
            self.over(self.id)
            return False
        if lost := keys(welcome.lost_ids, welcome.lost_epochs):
            log.warning("tasks were lost to other workers while there was no connection", tasks=len(lost), session=self.name)
            self.executor.lose(lost)
            self.outbox.drop(lost)
        self._resumed = True
        self.executor.floor.forget_told()
        self.outbox.rewind()
        self.wake.set()
        self.renewed(self.id, sent + TRUST * welcome.lease)
        return True

    def receive(self, message: SchedulerMessage) -> None:
        """Do what a scheduler asks. Raises ValueError for a message that makes no sense."""
        if message.tasks is not None:
            self._take(message.tasks)
        elif message.settled is not None:
            self._settle(message.settled)
        elif message.cancel is not None:
            self.executor.cancel(keys(message.cancel.ids, message.cancel.epochs))

    def renewed(self, session: bytes, until: float) -> None:
        """The lease of ``session`` may be trusted until that monotonic time."""
        if session == self.id:
            self.executor.trusted_until = max(self.executor.trusted_until, until)
            self.executor.pump()

    def cancel(self, session: bytes, asked: set[bytes]) -> None:
        """Cancel attempts of ``session`` by key (id and epoch in one)."""
        if session == self.id:
            self.executor.cancel(asked)

    def over(self, session: bytes) -> bool:
        """``session`` is dead: drop everything and be a new one. False when that has happened already."""
        if session != self.id:
            return False
        log.warning("the session is over: its tasks run elsewhere", session=self.name, running=len(self.executor.floor.running))
        self.id = uuid.uuid4().bytes
        self._resumed = False
        self.executor.trusted_until = 0.0
        self.executor.clear()
        self.outbox.clear()
        return True

    def _take(self, tasks: Tasks) -> None:
        handler = self.handlers.get(tasks.task_type)
        if handler is None:
            log.error("tasks of a type that this worker does not run are given back", task_type=tasks.task_type, session=self.name)
            for id_, epoch in zip(split(tasks.ids, ID), split(tasks.epochs, EPOCH), strict=True):
                self.outbox.add(id_, epoch, RELEASED, 0)
            return
        took = self.executor.times.of(tasks.queue, tasks.task_type)
        waiting = unpack(tasks, handler, time.monotonic(), took, self.name)
        self.flow.touch()
        self.executor.accept(waiting)

    def _settle(self, settled: Settled) -> None:
        self.outbox.settled(settled.batches)
        for id_ in split(settled.stale_ids, ID):
            log.warning(
                "an outcome came too late: the task was no longer this worker's", task_id=str(uuid.UUID(bytes=id_)), session=self.name
            )
        self.executor.pump()
