"""The Dockerfile's steps without an engine: each stage is a layer over this machine's own file system, in a mount namespace.

Debian's packages and Python are those of the machine instead of the base image's. All else is as written: RUN, COPY, ENV, WORKDIR, USER.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON = Path(sys.base_prefix) / "bin"
# A layer of a stage's own over the root, with devices and processes; then the command inside.
ENTER = """
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$LAYER,workdir=$WORK" "$ROOT"
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
if [ -n "$READ_ONLY" ]; then
    mount -o remount,ro "$ROOT"
    mount -t tmpfs -o size=64m,mode=1777 tmpfs "$ROOT/tmp"
fi
exec chroot "$ROOT" "$@"
"""


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions in order, without comments and with their lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", dockerfile.read_text()))
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


class Stage:
    """One stage while it is built, and the image once it is."""

    def __init__(self, folder: Path, context: Path) -> None:
        self._layer, self._work, self._root = (folder / name for name in ("layer", "work", "root"))
        for path in (self._layer, self._work, self._root):
            path.mkdir(parents=True)
        self._context = context
        # A base image's interpreter is for everybody; this machine's may be in somebody's home.
        for home in [path for path in PYTHON.parents if path != Path("/") and not path.stat().st_mode & 0o001]:
            opened = self._layer / home.relative_to("/")
            opened.mkdir(parents=True)
            opened.chmod(0o711)
        self.variables = {"PATH": f"{PYTHON}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.folder = "/"
        self.user = "0:0"
        self.entrypoint: list[str] = []
        self.health: list[str] = []

    def follow(self, word: str, rest: str, stages: dict[str, "Stage"]) -> None:
        """Do one instruction. Raises CalledProcessError where a step fails."""
        match word:
            case "ENV":
                for part in shlex.split(rest):
                    name, _, value = part.partition("=")
                    self.variables[name] = re.sub(r"\$(\w+)", lambda found: self.variables[found[1]], value)
            case "WORKDIR":
                self.folder = rest
                self._at(rest).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = rest
            case "RUN":
                subprocess.run(self.command(["/bin/sh", "-ec", rest]), check=True, capture_output=True, text=True, env=self._building())
            case "COPY":
                self._copy(rest.split(), stages)
            case "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            case "HEALTHCHECK":
                self.health = json.loads(rest.split("CMD ", 1)[1])
            case "LABEL" | "EXPOSE" | "STOPSIGNAL":
                pass
            case _:
                raise ValueError(f"{word} is not known here")

    def command(self, arguments: list[str], *, read_only: bool = False) -> list[str]:
        """What runs ``arguments`` inside, as the stage's user without any capability. With ``read_only`` as it would be in production."""
        uid, gid = self.user.split(":")
        powers = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"] if uid != "0" else []
        inside = ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *powers]
        script = f'cd {shlex.quote(self.folder)} && exec "$@"'
        paths = {"LAYER": self._layer, "WORK": self._work, "ROOT": self._root, "READ_ONLY": "1" if read_only else ""}
        return [
            "env", *(f"{name}={value}" for name, value in paths.items()),
            "unshare", "--mount", "--propagation=private", "/bin/sh", "-c", ENTER, "sh",
            *inside, "/bin/sh", "-c", script, "sh", *arguments,
        ]  # fmt: skip

    def _building(self) -> dict[str, str]:
        """A build has the machine's way to the packages; PATH and all else is the image's."""
        ours = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_")) or name.lower().endswith("_proxy")}
        return ours | self.variables

    def _copy(self, words: list[str], stages: dict[str, "Stage"]) -> None:
        *sources, target = [word for word in words if not word.startswith("--")]
        origin = next((stages[word.removeprefix("--from=")] for word in words if word.startswith("--from=")), None)
        for source in sources:
            place = self._at(target) if target.startswith("/") else self._at(self.folder) / target
            if origin is not None:
                shutil.copytree(origin._at(source), place, symlinks=True)
            elif source == ".":
                for name in _allowed(self._context):
                    found = self._context / name
                    if found.is_dir():
                        shutil.copytree(found, place / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
                    else:
                        shutil.copy2(found, place / name)
            else:
                shutil.copy2(self._context / source, place)

    def _at(self, path: str) -> Path:
        return self._layer / path.lstrip("/")


def build(dockerfile: Path, folder: Path) -> Stage:
    """Build all stages in ``folder``; the last one. Raises CalledProcessError, with what it said, where a step fails."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in instructions(dockerfile):
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "last"
            stage = stages[name] = Stage(folder / name, dockerfile.parent)
        elif stage is not None:
            stage.follow(word, rest, stages)
    return stages["last"]


def _allowed(context: Path) -> list[str]:
    """What .dockerignore lets in: everything is out but what it names."""
    rules = [line for line in (context / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    assert rules[0] == "*"
    wanted = [rule[1:] for rule in rules if rule.startswith("!")]
    assert not any(fnmatch.filter(wanted, "*[*?]*"))
    return wanted
