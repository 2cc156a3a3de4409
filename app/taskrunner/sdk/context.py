"""What a handler is told about the attempt that it runs."""

from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from uuid import UUID

POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Done:
    """Nothing to wait for: what is awaited has happened already."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


def _nowhere(_id: bytes, _epoch: bytes, _fraction: float, _message: str) -> None:
    """Where nobody listens."""


class Context:
    """One attempt of one task.

    ``attempt`` counts from 1 to ``max_attempts``; ``timeout`` is in seconds; ``cancelled`` turns true when somebody
    asked to cancel the task, when its time is up or when the worker lost it: a plain function in a thread should look at it now and then,
    an async handler gets ``asyncio.CancelledError`` instead. ``session`` is the worker's, as ``GET /api/workers`` shows it.
    """

    __slots__ = (
        "_cancelled",
        "_epoch",
        "_id",
        "_report",
        "_run_at",
        "_traceparent",
        "attempt",
        "max_attempts",
        "queue",
        "session",
        "task_type",
        "timeout",
    )

    def __init__(  # noqa: PLR0913 — a record, always built from keywords
        self,
        *,
        id: bytes,  # noqa: A002 — the column's name on the wire
        task_type: str,
        queue: str,
        attempt: int,
        max_attempts: int,
        timeout: float,
        run_at: int,
        cancelled: Callable[[], bool] = bool,
        epoch: bytes = b"",
        report: Callable[[bytes, bytes, float, str], None] = _nowhere,
        session: str = "",
        traceparent: bytes = b"",
    ) -> None:
        """``id`` is the task's UUID as 16 bytes, ``run_at`` its time in microseconds since 2000-01-01 UTC, as on the wire.

        ``report`` hears of progress: ``id``, ``epoch``, the fraction and the message.
        """
        self._id = id
        self.task_type = task_type
        self.queue = queue
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.timeout = timeout
        self._run_at = run_at
        self._cancelled = cancelled
        self._epoch = epoch
        self._report = report
        self.session = session
        self._traceparent = traceparent

    @property
    def task_id(self) -> str:
        """The task's id: the same on every attempt, so a good idempotency key for what the handler calls."""
        return str(UUID(bytes=self._id))

    @property
    def run_at(self) -> datetime:
        """When the task was due, in UTC."""
        return POSTGRES_EPOCH + timedelta(microseconds=self._run_at)

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context that the task was created in, as it was given; None where there was none."""
        return self._traceparent.decode("ascii", "replace") if self._traceparent.strip(b"\0") else None

    def log_fields(self) -> dict[str, str | int]:
        """What every log line of this attempt says, whoever writes it; for a logger of your own that does not know us."""
        return {"task_id": self.task_id, "attempt": self.attempt, "session": self.session}

    @property
    def cancelled(self) -> bool:
        """True once this attempt should stop."""
        return self._cancelled()

    def progress(self, fraction: float, message: str = "") -> Done:
        """Say how far this attempt is, from 0 to 1, and what it is doing: the task shows it within a second.

        It may be called as often as you like: at most twice a second the last word is sent. ``await ctx.progress(…)`` and a plain call,
        from a plain function for instance, are the same.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress is a number from 0 to 1, not {fraction!r}")
        self._report(self._id, self._epoch, float(fraction), str(message))
        return Done()
