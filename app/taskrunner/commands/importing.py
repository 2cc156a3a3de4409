"""``taskrunner task import``: a stream of any length, in little memory, with a bar on a terminal."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import IO

from taskrunner.client import Client
from taskrunner.commands.bar import Bar
from taskrunner.commands.words import tasks

CHUNK = 1 << 18


async def import_file(client: Client, name: str, *, as_json: bool) -> int:
    """Create the tasks in the file; 0. Raises Refused, which names a line that is wrong, and then nothing is created."""
    if name == "-":
        return await _import(client, sys.stdin.buffer, 0, as_json=as_json)
    with open(name, "rb") as file:  # noqa: PTH123, ASYNC230 — a local file is opened at once, and read in a thread
        return await _import(client, file, file.seek(0, 2) - file.seek(0) if file.seekable() else 0, as_json=as_json)


async def _import(client: Client, file: IO[bytes], total: int, *, as_json: bool) -> int:
    bar = Bar(total)
    made = 0
    try:
        async for task in client.import_lines(_chunks(file, bar)):
            made += 1
            if as_json:
                sys.stdout.write(f'{{"id": "{task.id}", "status": "{task.status}"}}\n')
            elif made % 10_000 == 0:
                bar.draw(total, f"{made:,} tasks committed")
    finally:
        bar.clear()
    if not as_json:
        sys.stdout.write(f"{tasks(made)} created in {bar.seconds:.1f} s\n")
    return 0


async def _chunks(file: IO[bytes], bar: Bar) -> AsyncIterator[bytes]:
    sent = lines = 0
    while chunk := await asyncio.to_thread(file.read, CHUNK):
        yield chunk
        sent += len(chunk)
        lines += chunk.count(b"\n")
        bar.move(sent, f"{lines:,} lines sent")
    bar.draw(sent, f"{lines:,} lines sent, waiting for the commit")
