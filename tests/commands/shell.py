"""The command line as a test calls it, and a terminal of our own for the one that needs it."""

import asyncio
import os
import pty
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

Do = Callable[..., Coroutine[Any, Any, tuple[int, str, str]]]
MAIN = (sys.executable, "-m", "taskrunner")


class Terminal:
    """What a process shows on a terminal, and the way to press keys there."""

    def __init__(self, file: int, process: asyncio.subprocess.Process) -> None:
        self._file = file
        self.process = process
        self.shown = b""
        asyncio.get_running_loop().add_reader(file, self._read)

    def _read(self) -> None:
        try:
            block = os.read(self._file, 65_536)
        except OSError:  # the other side of a terminal is closed
            block = b""
        if not block:
            asyncio.get_running_loop().remove_reader(self._file)
        self.shown += block

    def press(self, keys: bytes) -> None:
        os.write(self._file, keys)

    def resize(self, lines: int, columns: int) -> None:
        import termios

        termios.tcsetwinsize(self._file, (lines, columns))

    async def sees(self, text: str, *, times: int = 1) -> None:
        """Return when the text was shown."""
        async with asyncio.timeout(15):
            while self.shown.count(text.encode()) < times:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def terminal(*argv: str, pipes: Sequence[str] = ()) -> AsyncIterator[Terminal]:
    """``taskrunner`` on a terminal; those of ``stdin``, ``stdout``, ``stderr`` that ``pipes`` names are pipes."""
    ours, theirs = pty.openpty()
    streams: dict[str, Any] = {name: asyncio.subprocess.PIPE if name in pipes else theirs for name in ("stdin", "stdout", "stderr")}
    process = await asyncio.create_subprocess_exec(*MAIN, *argv, start_new_session=True, **streams)
    os.close(theirs)
    it = Terminal(ours, process)
    try:
        yield it
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(ours)
