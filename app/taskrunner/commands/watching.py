"""``taskrunner task watch``: what happens, as it happens: to all tasks that fit, or to these until each is finished."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from taskrunner.client import Client, Task
from taskrunner.commands.codes import DONE, FAILED, Arguments
from taskrunner.commands.words import Misused, clean, show_json, text_of

LOOK = 0.25  # seconds between two looks
SAID = ("status", "attempt", "run_at", "progress", "progress_message", "error", "cancel_requested_at")


async def watch(client: Client, arguments: Arguments, filters: Mapping[str, Any]) -> int:
    """With ids: until those are finished; 0 when all are COMPLETED. Without: for ever."""
    if not arguments["ids"]:
        await _events(client, arguments, filters)
        return DONE
    if any(filters.values()) or arguments["after"]:
        raise Misused("give IDs, or filters and --after; not both")
    known: dict[str, Mapping[str, Any]] = {id_: {} for id_ in arguments["ids"]}
    good = True
    while True:
        for id_, before in [*known.items()]:
            task = await client.get(id_)
            said = {name: getattr(task, name, None) for name in SAID}
            if said != before:
                _tell(task, as_json=arguments["json"])
                known[id_] = said
            if task.finished:
                good &= task.succeeded
                del known[id_]
        if not known:
            return DONE if good else FAILED
        await asyncio.sleep(LOOK)


async def _events(client: Client, arguments: Arguments, filters: Mapping[str, Any]) -> None:
    async for event in client.events(last_event_id=arguments["after"], **filters):
        if not isinstance(event.data, dict):
            continue
        if arguments["json"]:
            show_json({"event": event.event, "event_id": event.id if event.event == "finished" else None, **event.data})
        else:
            _say(event.data)


def _tell(task: Task, *, as_json: bool) -> None:
    if as_json:
        show_json(task)
    else:
        _say(task.model_dump(mode="json"))


def _say(task: Mapping[str, Any]) -> None:
    """A line about a task or an event, which have these members alike."""
    at = text_of(task.get("finished_at") or task["updated_at"])
    words = [
        f"{at[11:23]}Z",
        task["id"],
        f"{task['status']:<9}",
        clean(f"{task['queue']}/{task['task_type']}"),
        f"attempt {task['attempt']}",
    ]
    if task.get("progress") is not None and task["status"] == "RUNNING":
        words.append(f"{task['progress']:.0%}")
    words += [clean(" ".join(task[name].split()))[:80] for name in ("progress_message", "error") if task.get(name)]
    sys.stdout.write("  ".join(words) + "\n")
    sys.stdout.flush()
