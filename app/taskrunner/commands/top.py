"""``taskrunner top``: what waits and runs now, again and again; one picture where there is no terminal."""

import asyncio
import os
import signal
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from taskrunner.client import ApiError, Client, Lot, Unreachable, Worker
from taskrunner.commands.codes import DONE, Arguments
from taskrunner.commands.fleet import lines_of
from taskrunner.commands.words import Misused, fitted, sentence, show_json, span
from taskrunner.kit.loops import first_of
from taskrunner.kit.signals import unless

SOONEST = 0.2  # seconds
SMOOTH = 10.0  # seconds that rates are a mean of
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the other screen without a cursor, and back
HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"
USUAL = (80, 24)  # columns and lines of a terminal that does not say
UNLIMITED = 1_000  # lines and columns where there is no terminal
ENDS = ("COMPLETED", "FAILED", "CANCELLED")


class Look(NamedTuple):
    """What was seen at a moment of our own clock."""

    at: float
    tasks: dict[str, int]
    minute: dict[str, Any]  # the last one that is over
    queues: Sequence[Lot]
    types: Sequence[Lot]
    workers: Sequence[Worker]


async def act(client: Client, arguments: Arguments) -> int:
    """Show it: as JSON once, as text once, or on a terminal until q is pressed."""
    interval = arguments["interval"]
    if interval < SOONEST:
        raise Misused(f"--interval must be {SOONEST} seconds or more, not {interval:g}")
    if arguments["json"]:
        look = await _look(client)
        lots = {name: [lot.model_dump(mode="json") for lot in getattr(look, name)] for name in ("queues", "types", "workers")}
        show_json({"tasks": look.tasks, "minute": look.minute, **lots})
    elif sys.stdin.isatty() and sys.stdout.isatty():
        await _live(client, interval)
    else:
        sys.stdout.write("\n".join(picture(await _look(client), None, UNLIMITED, UNLIMITED)) + "\n")
    return DONE


async def _look(client: Client) -> Look:
    stats = await client.stats(window=120, step=60)
    return Look(time.monotonic(), stats["tasks"], stats["points"][-2], await client.queues(), await client.types(), await client.workers())


# ── a picture ──


def picture(look: Look, before: Look | None, wide: int, tall: int) -> list[str]:
    """At most ``tall`` lines of at most ``wide`` columns. Rates need a look from before."""
    lines = [*_head(look, before), ""]
    queues, types = sorted(look.queues, key=_busy), sorted(look.types, key=_busy)
    workers = sorted(_living(look), key=lambda worker: (-worker.in_flight, worker.name))
    parts: dict[str, Sequence[Lot | Worker]] = {"queues": queues, "types": types, "workers": workers}
    room = tall - len(lines)
    for n, (name, items) in enumerate(parts.items()):
        share = max(3, room // (len(parts) - n))
        rows = _part(name, items, share)
        lines += rows
        room -= len(rows)
    return [fitted(line, wide) for line in lines[:tall]]


def _head(look: Look, before: Look | None) -> list[str]:
    ages = [lot.oldest_ready_age for lot in look.queues if lot.oldest_ready_age is not None]
    ready, scheduled, running = (sum(getattr(lot, name) for lot in look.queues) for name in ("ready", "scheduled", "running"))
    live = _living(look)
    slots = f"{sum(worker.in_flight for worker in live):,} of {sum(worker.slots for worker in live):,} slots busy"
    oldest = f" (the oldest for {span(max(ages))})" if ages else ""
    ended = (f"{status.lower()} {look.tasks.get(status, 0):,} ({_rate(look, before, status):,.0f}/s)" for status in ENDS)
    starts = ", ".join(f"p{n} {_instant(look.minute[f'start_p{n}'])}" for n in (50, 95, 99))
    created, retried = (look.minute[name] / 60 for name in ("created", "retried"))
    return [
        f"ready {ready:,}{oldest}   scheduled {scheduled:,}   running {running:,}   workers {len(live):,}, {slots}",
        "   ".join(ended),
        f"the last minute: {created:,.0f}/s created, {retried:,.0f}/s tried again; start after {starts}",
    ]


def _living(look: Look) -> list[Worker]:
    return [worker for worker in look.workers if worker.status != "DEAD"]


def _rate(look: Look, before: Look | None, status: str) -> float:
    """How many ended so a second: since that look, or within the last minute."""
    if before is None or look.at <= before.at:
        return float(look.minute[status.lower()]) / 60
    # Retention takes whole days away: that is no negative speed.
    return max(0, look.tasks.get(status, 0) - before.tasks.get(status, 0)) / (look.at - before.at)


def _instant(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.0f} ms" if seconds < 1 else span(seconds)


def _busy(lot: Lot) -> tuple[int, int, str]:
    return (-lot.running - lot.ready, -lot.scheduled, lot.name)


def _part(name: str, items: Sequence[Lot | Worker], tall: int) -> list[str]:
    """A heading, a table that fits, and an empty line."""
    if not items:
        return [name.upper(), "none", ""][:tall]
    room = tall - 3  # the headings and the empty line
    if len(items) > room:
        shown = items[: max(0, room - 1)]
        return [name.upper(), *lines_of(items)[: len(shown) + 1], f"and {len(items) - len(shown):,} more", ""][:tall]
    return [name.upper(), *lines_of(items), ""]


# ── a terminal ──


async def _live(client: Client, interval: float) -> None:
    stop, wake = asyncio.Event(), asyncio.Event()
    looks, trouble = deque([await _look(client)]), ""
    last = looks[0].at
    with _screen(stop, wake):
        while not stop.is_set():
            _draw(looks[-1], looks[0], trouble or f"every {interval:g} s; q quits")
            wake.clear()
            await first_of([stop, wake], last + interval - time.monotonic())
            if time.monotonic() < last + interval:
                continue  # the terminal has another size, or it is over
            async with unless(stop):
                try:
                    looks.append(await _look(client))
                    trouble = ""
                except (ApiError, Unreachable) as error:
                    trouble = sentence(error)
            last = time.monotonic()
            # The service keeps its counts for a while where they are dear: rates over a moment would jump.
            while len(looks) > 2 and looks[1].at < last - SMOOTH:
                looks.popleft()


def _draw(look: Look, before: Look, said: str) -> None:
    wide, tall = (size or usual for size, usual in zip(os.get_terminal_size(sys.stdout.fileno()), USUAL, strict=True))
    lines = [f"{BOLD}{fitted(f'taskrunner  {said}', wide)}{PLAIN}", *picture(look, before, wide, tall - 1)]
    sys.stdout.write(HOME + "\r\n".join(line + CLEAR_LINE for line in lines) + CLEAR_REST)
    sys.stdout.flush()


@contextmanager
def _screen(stop: asyncio.Event, wake: asyncio.Event) -> Iterator[None]:
    """The terminal's other screen; q and signals set ``stop``, a change of size sets ``wake``. Afterwards all is as it was."""
    loop, keys = asyncio.get_running_loop(), sys.stdin.fileno()
    modes: list[Any] = termios.tcgetattr(keys)
    handlers = {signal.SIGINT: stop.set, signal.SIGTERM: stop.set, signal.SIGHUP: stop.set, signal.SIGWINCH: wake.set}

    def pressed() -> None:
        typed = os.read(keys, 64)
        if not typed or b"q" in typed.lower() or b"\x04" in typed:
            stop.set()

    for number, handle in handlers.items():
        loop.add_signal_handler(number, handle)
    tty.setcbreak(keys)
    loop.add_reader(keys, pressed)
    sys.stdout.write(ENTER)
    try:
        yield
    finally:
        loop.remove_reader(keys)
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(keys, termios.TCSADRAIN, modes)
        for number in handlers:
            loop.remove_signal_handler(number)
