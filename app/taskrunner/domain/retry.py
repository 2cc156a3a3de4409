"""When a failed attempt runs again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Growth: TypeAlias = Literal["exponential", "linear", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How a task wants to be retried. ``base`` and ``cap`` are seconds; None: as its handler or the settings say."""

    kind: Growth = "exponential"
    base: float | None = None
    cap: float | None = None


def backoff(attempt: int, *, base: float, cap: float, uniform: Callable[[float, float], float], kind: Growth = "exponential") -> float:
    """Seconds until the attempt after ``attempt`` (1 for the first).

    Exponential, with full jitter: drawn evenly from 0 to ``min(cap, base * 2 ** (attempt - 1))``, so that tasks that failed together
    do not come back together (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). Linear (``base * attempt``) and
    constant (``base``) ones are what somebody asked for to the second, and are kept so, up to ``cap``.
    ``uniform`` is ``random.uniform`` or a test's stand-in.
    """
    match kind:
        case "linear":
            return min(cap, base * attempt)
        case "constant":
            return min(cap, base)
        case _:
            ceiling = cap if attempt > 64 else min(cap, base * 2.0 ** (attempt - 1))
            return uniform(0.0, ceiling)
