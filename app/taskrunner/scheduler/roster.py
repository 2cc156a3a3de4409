"""Who is here: the worker sessions whose Work stream ends at this scheduler, and how much more each can take."""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from taskrunner.domain.lanes import BATCH, Serves
from taskrunner.store.claims import Claimed, Seat
from taskrunner.wire.pb.taskrunner.v1 import Goodbye, SchedulerMessage

LAGGING = 1.0  # seconds by which a worker's loop may be late before it is sent nothing more


@dataclass(slots=True, eq=False)
class Session:
    """A worker session on one of its streams. ``outstanding`` counts what it was sent and has not reported on."""

    id: UUID
    stream: int
    name: str
    serves: Serves
    slots: int
    prefetch: int
    outstanding: int = 0
    lag: float = 0.0
    taking: bool = True
    ends: bool = False  # with this stream
    outbox: deque["Parcel"] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: SchedulerMessage, claimed: Claimed | None = None, claimed_at: float = 0.0) -> None:
        """Put a message into the outbox; the stream's one writer sends it."""
        self.outbox.append(Parcel(message, claimed, claimed_at))
        self.wake.set()

    def sign_of_life(self) -> None:
        """Say nothing in particular."""
        self.send(SchedulerMessage())

    def dismiss(self, reason: str) -> None:
        """Send it nothing more and let it say Hello again, here or elsewhere: that names what it holds, and the rest is taken back."""
        self.taking = False
        self.send(SchedulerMessage(goodbye=Goodbye(reason=reason)))

    def hear(self, lag: float) -> bool:
        """The worker's loop is late by so many seconds; whether it is less late than before, and may have places again."""
        before, self.lag = self.lag, lag
        return lag < before

    @property
    def places(self) -> int:
        """How many tasks may be sent to it now.

        Free slots are filled at once. Places to prefetch are filled by the half, so that a quick worker gets few full messages instead of
        many small ones.
        """
        if not self.taking or self.lag > LAGGING:
            return 0
        places = self.slots + self.prefetch - self.outstanding
        if self.outstanding >= self.slots and places < min(BATCH, self.prefetch // 2):
            return 0
        return max(0, places)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message to a worker; with the claim in it, to be undone when no byte of it was sent in time."""

    message: SchedulerMessage
    claimed: Claimed | None
    claimed_at: float


class Roster:
    """The sessions that are connected here."""

    def __init__(self) -> None:
        self._sessions: dict[UUID, Session] = {}
        self._classes: dict[Serves, list[Session]] | None = None  # remembered until one comes or goes
        self._turn = 0

    def add(self, session: Session) -> None:
        """A session said Hello here; a stream of it that was here before is over."""
        self._sessions[session.id] = session
        self._classes = None

    def remove(self, session: Session) -> None:
        """That stream of the session ended."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            self._classes = None

    def get(self, session: UUID) -> Session | None:
        """The session of that id, if it is connected here."""
        return self._sessions.get(session)

    def __iter__(self) -> Iterator[Session]:
        return iter([*self._sessions.values()])

    def __len__(self) -> int:
        return len(self._sessions)

    def classes(self) -> Mapping[Serves, Sequence[Session]]:
        """Sessions that are alike, by what they serve. What is returned stays as it is, whoever comes or goes."""
        if self._classes is None:
            self._classes = {}
            for session in self._sessions.values():
                self._classes.setdefault(session.serves, []).append(session)
        return self._classes

    def seats(self, sessions: Sequence[Session]) -> list[Seat]:
        """Places at these sessions, dealt out so that nobody waits at a busy worker while another one has a free slot."""
        places = [(session, places) for session in sessions if (places := session.places)]
        idle = [(session, places) for session, places in places if session.outstanding < session.slots]
        chosen = idle or places
        if not chosen:
            return []
        self._turn += 1
        turn = self._turn % len(chosen)
        chosen = (chosen[turn:] + chosen[:turn])[:BATCH]
        first, free = chosen[0]
        if min(free, first.prefetch) >= BATCH:  # it asks for as much as it does in 20 ms: a full message for each in turn
            chosen = chosen[:1]
        share = -(-BATCH // len(chosen))
        return [Seat(session.id, session.stream, min(free, share)) for session, free in chosen]
