"""Outcomes on their way: they gather in columns, one set a kind, and are kept until a scheduler has committed them."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable

from taskrunner.wire.columns import pack_doubles, pack_ints
from taskrunner.wire.pb.taskrunner.v1 import Outcome, Outcomes, WorkerMessage
from taskrunner.worker.calls import Ending

MOST_TASKS = 2_000  # in one message
MOST_BYTES = 512 << 10  # the same on a slow link the other way: a message that is not sent in a third of a lease is sent again
LONGEST = 2**31 - 1  # milliseconds that run_ms can say


class Columns:
    """Outcomes of one kind. ``results`` and the rest are lists as long as ``ids``, or stay empty where the kind has none."""

    __slots__ = ("delays", "epochs", "errors", "ids", "outcome", "results", "run_ms", "size", "tracebacks")

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.ids: list[bytes] = []
        self.epochs: list[bytes] = []
        self.results: list[bytes] = []
        self.errors: list[str] = []
        self.tracebacks: list[str] = []
        self.delays: list[float] = []
        self.run_ms: list[int] = []
        self.size = 0

    def message(self, batch: int) -> WorkerMessage:
        """The message that carries these outcomes as number ``batch``."""
        return WorkerMessage(
            outcomes=Outcomes(
                batch=batch,
                outcome=self.outcome,
                ids=b"".join(self.ids),
                epochs=b"".join(self.epochs),
                results=self.results if any(self.results) else [],
                errors=self.errors if any(self.errors) else [],
                tracebacks=self.tracebacks if any(self.tracebacks) else [],
                delays=pack_doubles(self.delays) if any(self.delays) else b"",
                run_ms=pack_ints(self.run_ms) if any(self.run_ms) else b"",
            )
        )

    def drop(self, keys: set[bytes]) -> None:
        """Forget the outcomes of ``keys`` (id and epoch in one)."""
        keep = [at for at, (id_, epoch) in enumerate(zip(self.ids, self.epochs, strict=True)) if id_ + epoch not in keys]
        for name in ("ids", "epochs", "results", "errors", "tracebacks", "delays", "run_ms"):
            column = getattr(self, name)
            if column:
                column[:] = [column[at] for at in keep]


class Outbox:
    """``wake`` is called when there is something to send. ``size`` outcomes are unconfirmed; ``finished`` attempts have ended so far."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self._filling: dict[Outcome, Columns] = {}
        self._ready: deque[Columns] = deque()
        self._sent: dict[int, Columns] = {}
        self._batch = 0
        self._bell = asyncio.Event()
        self.size = 0
        self.finished = 0
        self.confirmed: Counter[Outcome] = Counter()

    def completed(self, id_: bytes, epoch: bytes, result: bytes, seconds: float) -> None:
        """The attempt succeeded after ``seconds``; ``result`` is JSON, or empty for null."""
        columns = self._columns(Outcome.COMPLETED, len(result))
        columns.ids.append(id_)
        columns.epochs.append(epoch)
        columns.results.append(result)
        columns.run_ms.append(0 if seconds < 0.001 else min(int(seconds * 1000), LONGEST))
        self.finished += 1

    def add(self, id_: bytes, epoch: bytes, ending: Ending, seconds: float) -> None:
        """The attempt ended as ``ending`` says, whose delay is decided by now, after ``seconds``."""
        if ending.outcome is Outcome.COMPLETED:
            self.completed(id_, epoch, ending.result, seconds)
            return
        columns = self._columns(ending.outcome, len(ending.error) + len(ending.traceback))
        columns.ids.append(id_)
        columns.epochs.append(epoch)
        columns.errors.append(ending.error)
        columns.tracebacks.append(ending.traceback)
        columns.delays.append(ending.delay or 0.0)
        columns.run_ms.append(min(int(seconds * 1000), LONGEST))
        self.finished += ending.outcome is not Outcome.RELEASED

    def _columns(self, outcome: Outcome, size: int) -> Columns:
        columns = self._filling.get(outcome)
        if columns is None or len(columns.ids) >= MOST_TASKS or columns.size + size > MOST_BYTES:
            if columns is not None:
                self._ready.append(columns)
            columns = self._filling[outcome] = Columns(outcome)
            self.wake()
        columns.size += size
        self.size += 1
        return columns

    def next(self) -> WorkerMessage | None:
        """The next message to send, or None. It is kept until ``settled`` names its batch."""
        if not self._ready:
            self._ready.extend(self._filling.values())
            self._filling.clear()
        while self._ready:
            columns = self._ready.popleft()
            if columns.ids:
                self._batch += 1
                self._sent[self._batch] = columns
                return columns.message(self._batch)
        return None

    def settled(self, batches: Iterable[int]) -> None:
        """A scheduler has committed ``batches``."""
        for batch in batches:
            columns = self._sent.pop(batch, None)
            if columns is not None:
                self.size -= len(columns.ids)
                self.confirmed[columns.outcome] += len(columns.ids)
        self._bell.set()

    def rewind(self) -> None:
        """Begin a new stream: everything unconfirmed is to be sent again, numbered from 1."""
        self._ready.extendleft(reversed(self._sent.values()))
        self._sent.clear()
        self._batch = 0
        if self.size:
            self.wake()

    def drop(self, keys: set[bytes]) -> None:
        """Forget the outcomes of attempts that are no longer ours."""
        for columns in self._all():
            columns.drop(keys)
        self.size = sum(len(columns.ids) for columns in self._all())
        self._bell.set()

    def clear(self) -> None:
        """Forget everything."""
        self._filling.clear()
        self._ready.clear()
        self._sent.clear()
        self.size = 0
        self._bell.set()

    async def empty(self) -> None:
        """Return once everything is confirmed."""
        while self.size:
            self._bell.clear()
            await self._bell.wait()

    def held(self) -> tuple[list[bytes], list[bytes]]:
        """Ids and epochs of everything unconfirmed."""
        ids = [id_ for columns in self._all() for id_ in columns.ids]
        epochs = [epoch for columns in self._all() for epoch in columns.epochs]
        return ids, epochs

    def _all(self) -> list[Columns]:
        return [*self._sent.values(), *self._ready, *self._filling.values()]
