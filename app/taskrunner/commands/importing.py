"""``taskrunner task import``: a stream of any length, in little memory, with a bar on a terminal."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import IO

from taskrunner.client import Client

CHUNK = 1 << 18
WIDTH = 30
OFTEN = 0.1  # seconds between two pictures


class Bar:
    """How far it is, on a terminal's standard error; nothing elsewhere. ``total`` is in bytes, 0 where nobody knows."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = sys.stderr.isatty()
        self._at = float("-inf")
        self._began = time.monotonic()
        self.bytes = 0
        self.lines = 0

    def move(self, chunk: bytes) -> None:
        """So much more was sent."""
        self.bytes += len(chunk)
        self.lines += chunk.count(b"\n")
        if self._shown and time.monotonic() - self._at > OFTEN:
            self.draw(f"{self.lines:,} lines sent")

    def draw(self, words: str) -> None:
        """Say it behind the bar."""
        if self._shown:
            self._at = time.monotonic()
            done = min(1.0, self.bytes / self._total) if self._total else 0.0
            bar = f"[{'█' * int(done * WIDTH):<{WIDTH}}] {done:4.0%}  " if self._total else ""
            sys.stderr.write(f"\r\x1b[2K{bar}{words}, {self.seconds:.1f} s")
            sys.stderr.flush()

    def clear(self) -> None:
        """Leave no trace."""
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began


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
                bar.draw(f"{made:,} tasks committed")
    finally:
        bar.clear()
    if not as_json:
        sys.stdout.write(f"{made:,} tasks created in {bar.seconds:.1f} s\n")
    return 0


async def _chunks(file: IO[bytes], bar: Bar) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK):
        yield chunk
        bar.move(chunk)
    bar.draw(f"{bar.lines:,} lines sent, waiting for the commit")
