"""Keeps a Work stream open to one of all schedulers."""

import asyncio
import ipaddress
import random
import socket
import time
from collections.abc import Callable, Sequence

import structlog

from taskrunner.settings import Settings
from taskrunner.wire.pb.taskrunner.v1 import Welcome
from taskrunner.worker.conversation import Conversation, Parted
from taskrunner.worker.places import BROKEN, Place, find_places, said
from taskrunner.worker.session import Session

log = structlog.get_logger()

BASE, CAP = 0.1, 2.0  # seconds: pauses between tries, drawn with full jitter; the first try comes at once
STABLE = 1.0  # seconds that a stream must last for the next first try to come at once
MOVE = (600.0, 900.0)  # seconds after which a worker goes to another scheduler, so that a rolling restart does not leave all on one


class Link:
    """``changed`` is called when a scheduler was reached or lost; ``begun`` with each accepted Welcome: beats follow the session."""

    def __init__(  # noqa: PLR0913 — collaborators, by keyword
        self,
        *,
        addresses: Sequence[str],
        session: Session,
        name: str,
        address: Place,
        settings: Settings,
        begun: Callable[[Welcome], None],
        changed: Callable[[], None],
    ) -> None:
        self._addresses = addresses
        self._session = session
        self._name = name
        self._address = address
        self._settings = settings
        self._begun = begun
        self._changed = changed
        self._conversation: Conversation | None = None
        self._last: Place | None = None
        self._trouble = ""
        self._closed = False
        self.connected: Place | None = None

    async def run(self) -> None:
        """Connect, talk, connect again, until ``close``."""
        tries = 0
        while not self._closed:
            if tries:
                await asyncio.sleep(random.uniform(0, min(CAP, BASE * 2**tries)))  # noqa: S311 — jitter
            lasted = await self._visit()
            tries = 0 if lasted >= STABLE else 1 if lasted else tries + 1

    def close(self) -> None:
        """Part for good."""
        self._closed = True
        if self._conversation is not None:
            self._conversation.leave("the worker stops")

    def over(self, session: bytes) -> None:
        """``session`` is dead: begin a new one on a new stream. Nothing once we part for good: it ended because we said so."""
        if not self._closed and self._session.over(session) and self._conversation is not None:
            self._conversation.drop("the session is over")

    async def _visit(self) -> float:
        """Talk to some scheduler until the stream ends. Returns how many seconds it was accepted for."""
        try:
            places = await find_places(self._addresses)
        except OSError as error:
            self._complain("no scheduler was found", said(error))
            return 0.0
        place = next((one for one in places if one != self._last), places[0])
        self._last = place
        began = moving = None

        def welcomed(welcome: Welcome) -> None:
            nonlocal began, moving
            began, self.connected, self._trouble = time.monotonic(), place, ""
            log.info("connected", scheduler=str(place), session=self._session.name)
            if len(places) > 1:
                pause = random.uniform(*MOVE)  # noqa: S311 — jitter
                moving = asyncio.get_running_loop().call_later(pause, conversation.leave, "going to another scheduler")
            self._begun(welcome)
            self._changed()

        hello = self._session.hello(name=self._name, address=_seen_from(place, self._address))
        conversation = self._conversation = Conversation(self._session, hello, settings=self._settings, welcomed=welcomed)
        try:
            await conversation.hold(place)
        except* Parted as parted:
            log.info("parted", scheduler=str(place), session=self._session.name, reason=said(parted))
        except* BROKEN as broken:
            self._complain("the stream to a scheduler broke", said(broken), scheduler=str(place), session=self._session.name)
        finally:
            self._conversation = self.connected = None
            if moving is not None:
                moving.cancel()
            self._changed()
        return 0.0 if began is None else time.monotonic() - began

    def _complain(self, what: str, trouble: str, **where: str) -> None:
        """Log it once while it stays the same."""
        if trouble != self._trouble:
            log.warning(what, error=trouble, **where)
        self._trouble = trouble


def _seen_from(scheduler: Place, address: Place) -> str:
    """Our own server's address as that scheduler can reach it: of a wildcard, the one on the way there."""
    try:
        if not ipaddress.ip_address(address.host).is_unspecified:
            return str(address)
        family = socket.AF_INET6 if ":" in scheduler.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((scheduler.host, scheduler.port))  # sends nothing
            return str(Place(probe.getsockname()[0], address.port))
    except (OSError, ValueError):
        return str(address)
