"""From a claim to the sessions that it is for."""

import asyncio
from collections.abc import Callable
from math import ceil
from time import monotonic

from taskrunner.scheduler.roster import Roster
from taskrunner.store.claims import Claimed
from taskrunner.wire.pb.taskrunner.v1 import SchedulerMessage, Tasks

# Bytes of payloads in one message: what a slow link does not take in a third of a lease comes again, and must not be all.
LETTER = 512 << 10


class Delivery:
    """Puts claims into the outboxes of their sessions. ``undelivered`` is told of those that are not sent."""

    def __init__(self, roster: Roster, *, undelivered: Callable[[Claimed], None]) -> None:
        self._roster = roster
        self._undelivered = undelivered
        self._loop = asyncio.get_running_loop()

    def send(self, claimed: list[Claimed], claimed_at: float) -> None:
        """What was claimed by a statement that began ``claimed_at``, by the clock of ``monotonic``."""
        for one in (part for whole in claimed for part in whole.parts(LETTER)):
            session = self._roster.get(one.session)
            if session is None or session.stream != one.stream:
                self._undelivered(one)  # its stream broke meanwhile
                continue
            session.send(SchedulerMessage(tasks=_message(one)), one, claimed_at)

    def give_back(self, claimed: list[Claimed]) -> None:
        """Send it to nobody: its places are free again."""
        for one in claimed:
            self._undelivered(one)
            session = self._roster.get(one.session)
            if session is not None and session.stream == one.stream:
                session.outstanding -= one.n

    def send_at(self, when: float, claimed: list[Claimed], claimed_at: float) -> None:
        """The same, and never before ``when``: a timer of uvloop counts whole milliseconds, and may be early."""
        early = when - monotonic()
        if early > 0:
            self._loop.call_later(ceil(early * 1000) / 1000, self.send_at, when, claimed, claimed_at)
        else:
            self.send(claimed, claimed_at)


def _message(claimed: Claimed) -> Tasks:
    return Tasks(
        task_type=claimed.task_type,
        queue=claimed.queue,
        ids=claimed.ids,
        epochs=claimed.epochs,
        attempts=claimed.attempts,
        max_attempts=claimed.max_attempts,
        timeouts=claimed.timeouts,
        run_ats=claimed.run_ats,
        payloads=claimed.payloads,
        backoffs=claimed.backoffs,
        traceparents=claimed.traceparents,
    )
