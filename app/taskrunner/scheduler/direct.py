"""The direct way: a task that is created in a scheduler's own process goes to a worker with a free place at once, already claimed.

One commit instead of two, no hint, and no claim after it. It is open only where it takes nothing from anybody: nothing else is due for
these workers, and there is a place for each task that no claim on its way may fill. Otherwise tasks wait to be claimed, as everywhere else.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic

from taskrunner.domain.errors import OutcomeUnknown
from taskrunner.domain.lanes import Lanes
from taskrunner.domain.task import Created, Lane, NewTask
from taskrunner.scheduler.delivery import Delivery
from taskrunner.scheduler.dispatch import Dispatcher
from taskrunner.scheduler.roster import Roster, Session
from taskrunner.store.claims import Seat
from taskrunner.store.direct import DirectCreates, Place
from taskrunner.store.tasks import Store


class Direct:
    """Creates tasks for places that the dispatcher does not need just now."""

    def __init__(self, store: Store, roster: Roster, lanes: Lanes, dispatcher: Dispatcher, delivery: Delivery) -> None:
        self._store = store
        self._creates = DirectCreates(store.pool, store.meter)
        self._roster = roster
        self._lanes = lanes
        self._dispatcher = dispatcher
        self._delivery = delivery

    async def create(self, tasks: Sequence[NewTask]) -> list[Created] | None:
        """As ``Store.create``, and each task is on its way to a worker. None when there is no place for all: then nothing is done."""
        sessions = self._sessions(tasks)
        if sessions is None:
            return None
        began = monotonic()
        for session in sessions:
            session.outstanding += 1
        try:
            created, claimed, waiting = await self._creates.insert(
                tasks, [_place(task, at) for task, at in zip(tasks, sessions, strict=True)]
            )
        except BaseException as error:
            self._leave(sessions)
            if isinstance(error, (OutcomeUnknown, asyncio.CancelledError)):
                for session in {*sessions}:
                    session.dismiss("a claim for it may be lost")
            raise
        self._delivery.send(claimed, began)
        if waiting:
            self._leave([sessions[n] for n in waiting])
            self._store.hint([tasks[n] for n in waiting], [created[n] for n in waiting])
        return created

    def _sessions(self, tasks: Sequence[NewTask]) -> list[Session] | None:
        """One for each task; None when not all of them can be had."""
        if self._dispatcher.stopped or any(task.run_at or task.delay or task.expires_at for task in tasks):
            return None
        now = monotonic()
        lanes = {Lane(task.queue, task.task_type, task.priority) for task in tasks}
        if any(self._lanes.gates.closed(lane, now) for lane in lanes):
            return None
        for serves, sessions in self._roster.classes().items():
            if all(map(serves.takes, lanes)) and not self._lanes.due(serves, now):
                seats = self._roster.seats(sessions)
                if sum(seat.free for seat in seats) >= len(tasks):
                    return [session for seat in _deal(seats, len(tasks)) if (session := self._roster.get(seat.session))]
        return None

    def _leave(self, sessions: Sequence[Session]) -> None:
        for session in sessions:
            session.outstanding -= 1
        self._dispatcher.wake()


def _deal(seats: Sequence[Seat], n: int) -> list[Seat]:
    """The first place of each seat, then the second, …, as claims do; ``n`` of them."""
    dealt: list[Seat] = []
    k = 0
    while len(dealt) < n:
        dealt += [seat for seat in seats if seat.free > k][: n - len(dealt)]
        k += 1
    return dealt


def _place(task: NewTask, session: Session) -> Place:
    max_attempts, timeout = session.serves.default(task.task_type)
    return Place(session.id, session.stream, max_attempts, timeout)
