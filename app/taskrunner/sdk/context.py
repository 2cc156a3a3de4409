"""What a handler is told about the attempt that it runs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Context:
    """One attempt of one task.

    ``attempt`` counts from 1 to ``max_attempts``; ``timeout`` is in seconds; ``cancelled`` turns true when somebody
    asked to cancel the task, when its time is up or when the worker lost it: a plain function in a thread should look at it now and then,
    an async handler gets ``asyncio.CancelledError`` instead.
    """

    __slots__ = ("_cancelled", "_id", "_run_at", "attempt", "max_attempts", "queue", "task_type", "timeout")

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
    ) -> None:
        """``id`` is the task's UUID as 16 bytes, ``run_at`` its time in microseconds since 2000-01-01 UTC, as on the wire."""
        self._id = id
        self.task_type = task_type
        self.queue = queue
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.timeout = timeout
        self._run_at = run_at
        self._cancelled = cancelled

    @property
    def task_id(self) -> str:
        """The task's id: the same on every attempt, so a good idempotency key for what the handler calls."""
        return str(UUID(bytes=self._id))

    @property
    def run_at(self) -> datetime:
        """When the task was due, in UTC."""
        return POSTGRES_EPOCH + timedelta(microseconds=self._run_at)

    @property
    def cancelled(self) -> bool:
        """True once this attempt should stop."""
        return self._cancelled()
