"""What a handler raises to say what is next. Anything else that it raises is an error, and is retried with backoff."""

from datetime import timedelta


def seconds(duration: float | timedelta) -> float:
    """``duration`` in seconds; negative and not-a-number durations are refused."""
    value = duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
    if not 0 <= value <= 366 * 86400:
        raise ValueError(f"a delay must be between 0 seconds and 366 days, not {duration!r}")
    return value


class Verdict(Exception):
    """Base of the exceptions by which a handler decides about its task."""


class Retry(Verdict):
    """Run the task again: ``after`` that many seconds, or after the usual backoff. The attempt counts."""

    def __init__(self, reason: str = "", *, after: float | timedelta | None = None) -> None:
        super().__init__(reason)
        self.after = None if after is None else seconds(after)


class Snooze(Verdict):
    """Not now: run the task again after ``delay`` seconds. The attempt does not count."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = seconds(delay)


class Fail(Verdict):
    """Give up: the task is FAILED now, whatever attempts are left."""
