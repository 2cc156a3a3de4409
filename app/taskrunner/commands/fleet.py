"""The actions of ``taskrunner worker``, ``queue`` and ``type``."""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any

from taskrunner.client import Client, Lot, Worker
from taskrunner.commands.bar import Bar
from taskrunner.commands.codes import DONE, FAILED, Arguments
from taskrunner.commands.each import each
from taskrunner.commands.words import are, clean, show_json, span, table, tasks

LOOK = 0.5  # seconds between two looks at a worker that drains
WORKERS = ("SESSION", "NAME", "VERSION", "STATUS", ">BUSY", ">SLOTS", ">BEAT", ">LAG", "STARTED", "QUEUES", "TYPES")
LOTS = ("NAME", ">READY", ">SCHEDULED", ">RUNNING", ">OLDEST", "")


async def act(client: Client, arguments: Arguments) -> int:
    """Do one of them; the exit code."""
    match arguments["command"], arguments["action"]:
        case "worker", "list":
            _show(await client.workers(), as_json=arguments["json"])
        case "worker", _:
            return await _drain(client, arguments)
        case scope, "list":
            _show(await (client.queues() if scope == "queue" else client.types()), as_json=arguments["json"])
        case scope, action:
            return await _turn(client, scope, arguments, paused=action == "pause")
    return DONE


def _show(items: Sequence[Worker | Lot], *, as_json: bool) -> None:
    if as_json:
        for item in items:
            show_json(item)
        return
    sys.stdout.write("\n".join(lines_of(items) or ["there are none"]) + "\n")


def lines_of(items: Sequence[Worker | Lot]) -> list[str]:
    """Workers, queues or types as a table; no line without any."""
    if not items:
        return []
    return table(WORKERS if isinstance(items[0], Worker) else LOTS, [_cells(item) for item in items])


def _cells(item: Worker | Lot) -> list[str]:
    if isinstance(item, Lot):
        counts = [f"{n:,}" for n in (item.ready, item.scheduled, item.running)]
        return [item.name, *counts, span(item.oldest_ready_age), "paused" if item.paused else ""]
    return [
        item.session,
        item.name,
        item.version,
        item.status,
        str(item.in_flight),
        str(item.slots),
        span(item.last_beat_age),
        f"{item.lag * 1000:.0f} ms",
        f"{item.started_at:%Y-%m-%d %H:%M:%SZ}",
        ",".join(item.queues),
        ",".join(item.task_types),
    ]


async def _turn(client: Client, scope: Any, arguments: Arguments, *, paused: bool) -> int:
    async def act(name: str) -> int:
        await (client.pause if paused else client.resume)(scope, name)
        if arguments["json"]:
            show_json({"name": name, "paused": paused})
        else:
            sys.stdout.write(f"the {scope} {clean(name)} is {'paused' if paused else 'open'}\n")
        return DONE

    return await each(arguments["names"], act)


async def _drain(client: Client, arguments: Arguments) -> int:
    """Ask each of them, then wait for all of them where that is wanted."""
    asked: list[Worker] = []

    async def act(session: str) -> int:
        asked.append(await client.drain(session))
        return DONE

    code = await each(arguments["sessions"], act)
    if arguments["wait"] is not None:
        asked = await _gone(client, asked, arguments["wait"])
    for worker in asked:
        if arguments["json"]:
            show_json(worker)
        else:
            rest = "has ended" if worker.status == "DEAD" else f"is {worker.status} and holds {tasks(worker.in_flight)}"
            sys.stdout.write(f"{worker.session}  {clean(worker.name)} {rest}\n")
    ended = arguments["wait"] is None or all(worker.status == "DEAD" for worker in asked)
    return max(code, DONE if ended else FAILED)


async def _gone(client: Client, asked: Sequence[Worker], seconds: float) -> list[Worker]:
    """These workers as they are once all have ended, or after so many seconds."""
    ends, bar = time.monotonic() + seconds, Bar(len(asked))
    try:
        while True:
            now = {worker.session: worker for worker in await client.workers()}
            # One that the service has forgotten ended long ago.
            found = [now.get(worker.session) or worker.model_copy(update={"status": "DEAD", "in_flight": 0}) for worker in asked]
            dead = sum(worker.status == "DEAD" for worker in found)
            if dead == len(found) or time.monotonic() >= ends:
                return found
            holding = sum(worker.in_flight for worker in found)
            bar.move(dead, f"{dead} of {len(found)} have ended, {tasks(holding)} {are(holding)} still held")
            await asyncio.sleep(LOOK)
    finally:
        bar.clear()
