"""``taskrunner task cancel`` and ``retry`` of all tasks that fit: asked first, then done by the service, with a bar on a terminal."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Any, Literal

from taskrunner.client import Bulk, Client, Count
from taskrunner.commands.bar import Bar
from taskrunner.commands.codes import DONE, FAILED
from taskrunner.commands.words import Misused, show_json, tasks

LOOK = 0.2  # seconds between two looks at how far it is
# What the service takes without a status; said, so that it is counted too.
MEANT = {"cancel": ["PENDING", "QUEUED", "RUNNING"], "retry": ["FAILED", "CANCELLED"]}
DID = {"cancel": "cancelled", "retry": "made to run again"}


async def change_all(client: Client, verb: Literal["cancel", "retry"], filters: Mapping[str, Any], *, yes: bool, as_json: bool) -> int:
    """Do it; 0 when every task that was found was changed. Raises Misused where nobody said which are meant, or that all of them are."""
    if not any(filters.values()):
        raise Misused(f"give IDs, or filters that say which tasks to {verb}")
    meant = {"status": MEANT[verb], **filters}
    found = await client.count(**meant)
    if not yes and not await _sure(verb, found):
        return FAILED
    bulk = await _done(client, await client.bulk(verb, **meant), found)
    if as_json:
        show_json(bulk)
    else:
        rest = f", {bulk.failed:,} could not be: somebody has them locked, or a live task has their unique_key" if bulk.failed else ""
        sys.stdout.write(f"{tasks(bulk.done)} {DID[verb]}{rest}{f': {bulk.error}' if bulk.error else ''}\n")
    return FAILED if bulk.failed or bulk.status == "FAILED" else DONE


async def _sure(verb: str, found: Count) -> bool:
    words = tasks(found.count) if found.complete else f"{found.count:,} or more tasks"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Misused(f"this would {verb} {words}: say --yes to do it")
    sys.stderr.write(f"{verb} {words}? [y/N] ")
    sys.stderr.flush()
    typed = asyncio.Event()  # waited for, so that Ctrl-C is heard
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), typed.set)
    try:
        await typed.wait()
    finally:
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def _done(client: Client, bulk: Bulk, found: Count) -> Bulk:
    """The operation when it is over. It goes on when we are interrupted."""
    bar = Bar(found.count if found.complete else 0)
    try:
        while bulk.status == "RUNNING":
            bar.move(bulk.done, f"{bulk.done:,} tasks done")
            await asyncio.sleep(LOOK)
            bulk = await client.bulk_state(bulk.id)
    finally:
        bar.clear()
    return bulk
