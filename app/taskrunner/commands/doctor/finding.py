"""What a check is given, and what it finds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from taskrunner.settings import Settings
from taskrunner.store.examination import Examination


class Severity(IntEnum):
    """How bad it is. The worst one is the exit code, except that a note is as good as nothing."""

    NOTE = 0
    WARNING = 1
    CRITICAL = 2


class Finding(NamedTuple):
    """What is wrong, in a sentence, and what to do about it."""

    severity: Severity
    what: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a finding begins. Durations are seconds."""

    skew: float = 2.0
    transaction: float = 300.0
    prepared: float = 60.0
    unserved: float = 60.0
    stuck: float = 300.0
    held: float = 60.0
    draining: float = 600.0
    unvacuumed: float = 300.0
    connections: float = 0.8  # of those that may be
    kept_wal: int = 1 << 30  # bytes
    xid_age: int = 1_000_000_000  # of 2,100,000,000, where PostgreSQL stops to write
    old_snapshot: int = 1_000_000  # transactions
    free_disk: float = 0.1


class Patient(NamedTuple):
    """What is looked at."""

    database: Examination
    settings: Settings
    limits: Limits


Check = Callable[[Patient], Awaitable[list[Finding]]]


def note(what: str, remedy: str) -> Finding:
    """Worth knowing."""
    return Finding(Severity.NOTE, what, remedy)


def warning(what: str, remedy: str) -> Finding:
    """It will hurt, or does so a little."""
    return Finding(Severity.WARNING, what, remedy)


def critical(what: str, remedy: str) -> Finding:
    """Tasks do not run, or may be lost."""
    return Finding(Severity.CRITICAL, what, remedy)
