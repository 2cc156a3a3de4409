"""The state machine of a task, on one page.

Every SQL statement that moves a task names its moves in its header (``-- moves: QUEUED -> RUNNING``);
a test holds those headers and this table equal.
"""

from collections.abc import Mapping
from enum import StrEnum


class Status(StrEnum):
    """The six words of a task's life, as stored and as shown."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


P, Q, R, C, F, X = Status

LIVE = frozenset({P, Q, R})
HELD = frozenset({Q, R})
FINISHED = frozenset({C, F, X})
NEW = frozenset({P, Q})  # how a task begins: it waits to be claimed, or is created for a worker that has a place for it

MOVES: Mapping[Status, frozenset[Status]] = {
    P: frozenset({P, Q, X, F}),  # edited or run now · claimed · cancelled · expired
    Q: frozenset({R, P, C, F, X}),  # started · retried, snoozed, given back, lost · settled
    R: frozenset({P, C, F, X}),  # retried, snoozed, given back, lost · settled
    C: frozenset({P}),  # run again by a person
    F: frozenset({P}),
    X: frozenset({P}),
}
