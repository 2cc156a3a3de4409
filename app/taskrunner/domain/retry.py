"""When a failed attempt runs again."""

from collections.abc import Callable


def backoff(attempt: int, *, base: float, cap: float, uniform: Callable[[float, float], float]) -> float:
    """Seconds until the attempt after ``attempt`` (1 for the first): exponential, with full jitter.

    The delay is drawn evenly from 0 to ``min(cap, base * 2 ** (attempt - 1))``, so that tasks that failed together
    do not come back together (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    ``uniform`` is ``random.uniform`` or a test's stand-in.
    """
    ceiling = cap if attempt > 64 else min(cap, base * 2.0 ** (attempt - 1))
    return uniform(0.0, ceiling)
