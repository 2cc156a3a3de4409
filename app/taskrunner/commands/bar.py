"""How far a long work is, on a terminal."""

import sys
import time

WIDTH = 30
OFTEN = 0.1  # seconds between two pictures


class Bar:
    """On standard error where that is a terminal; nothing elsewhere. ``total`` is in the unit of ``done``, 0 where nobody knows."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._shown = sys.stderr.isatty()
        self._at = float("-inf")
        self._began = time.monotonic()

    def move(self, done: int, words: str) -> None:
        """So much is done; say ``words`` behind the bar. What comes too soon after the last picture is not drawn."""
        if self._shown and time.monotonic() - self._at > OFTEN:
            self.draw(done, words)

    def draw(self, done: int, words: str) -> None:
        """The same, at once."""
        if self._shown:
            self._at = time.monotonic()
            part = min(1.0, done / self._total) if self._total else 0.0
            bar = f"[{'█' * int(part * WIDTH):<{WIDTH}}] {part:4.0%}  " if self._total else ""
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
