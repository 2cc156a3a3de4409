"""A wall clock that is wrong for some processes only."""

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("wrongclock.c")
COMPILER = shutil.which("cc")


class WrongClock:
    """``environment`` makes a process tell the time wrongly, by as many seconds as ``set`` said last. Needs a C compiler."""

    def __init__(self, folder: Path, name: str, offset: float = 0.0) -> None:
        for parent in (folder, *folder.parents[:2]):  # PostgreSQL runs as somebody else
            parent.chmod(parent.stat().st_mode | 0o055)
        library = folder / "wrongclock.so"
        self._file = folder / f"{name}.clock"
        self._file.write_bytes(struct.pack("d", offset))
        self._file.chmod(0o644)
        if not library.exists():
            assert COMPILER is not None
            subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)], check=True, timeout=60)
        self.environment = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}

    def set(self, offset: float) -> None:
        """From now on; the file is mapped into the processes."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", offset))
