"""Sessions in documents, run as they stand: commands behind ``$``, and the answers that are shown.

In an answer … stands for anything, white space does not count, times fit any time, and with ``curl -i`` the headers shown are some of
those that come. Ids, entity tags and cursors differ from run to run: where one is shown first it takes the real one's place, in the
commands after it, too.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"(?ms)^```console\n(.*?)^```")
TIME = r"\d{4}-\d\d-\d\dT[\d:.]+Z"
TOKEN = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\b1\d{15}\b|(?<=[\"=:])[A-Za-z0-9_-]{22}(?=[\"'])|(?<=id: )[A-Za-z0-9_=-]{32}"
)
PARTS = re.compile(f"(?P<any>…)|(?P<time>{TIME})|(?P<token>{TOKEN.pattern})")


class Step(NamedTuple):
    """A command and the answer that the document shows."""

    command: str
    answer: str


def sessions(document: Path) -> list[list[Step]]:
    """The steps of each session of the document."""
    return [[*steps(block)] for block in BLOCK.findall(document.read_text())]


def steps(block: str) -> Iterator[Step]:
    """Commands begin with ``$`` and go on while a quotation is open, and behind a backslash or a pipe."""
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        lines = part.split("\n")
        n = 1
        while "\n".join(lines[:n]).count("'") % 2 or lines[n - 1].endswith(("\\", "|")):
            n += 1
        yield Step("\n".join(lines[:n]), "\n".join(lines[n:]).strip())


class Reader:
    """Runs steps one after the other, with ``place`` instead of localhost:8080."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._real: dict[str, str] = {}

    def run(self, step: Step) -> None:
        """Run the command and compare. Raises AssertionError."""
        command = TOKEN.sub(lambda token: self._real.get(token[0], token[0]), step.command).replace("localhost:8080", self._place)
        done = subprocess.run(
            ["bash", "-c", command.replace("curl ", "curl --silent --show-error ", 1)],
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        assert not done.stderr or "timed out" in done.stderr, done.stderr
        shown, came = step.answer, done.stdout
        if shown.startswith("HTTP/"):
            head, _, came = came.partition("\n\n") if "\r" not in came else came.replace("\r", "").partition("\n\n")
            lines = shown.split("\n")
            n = next((n for n, line in enumerate(lines) if not re.match(r"HTTP/|[\w-]+: ", line)), len(lines))
            for line in lines[:n]:
                self._compare(line, "\n".join(one for one in head.split("\n") if one.split(" ")[0].lower() == line.split(" ")[0].lower()))
            shown = "\n".join(lines[n:])
        self._compare(shown, came)

    def _compare(self, shown: str, came: str) -> None:
        names: dict[str, str] = {}

        def pattern(part: re.Match[str]) -> str:
            if part["any"]:
                return ".*?"
            if part["time"]:
                return TIME
            token = part["token"]
            if token in self._real:
                return re.escape(self._real[token])
            if token in names.values():
                return f"(?P={next(name for name, value in names.items() if value == token)})"
            names[name := f"t{len(names)}"] = token
            return f"(?P<{name}>[\\w=-]+)"

        text = shown.strip()
        pieces, at = [], 0
        for part in PARTS.finditer(text):
            pieces += [_plain(text[at : part.start()]), pattern(part)]
            at = part.end()
        pieces.append(_plain(text[at:]))
        found = re.fullmatch("".join(pieces), "".join(came.split()), re.DOTALL)
        assert found, f"the document shows\n{text}\nbut this came:\n{came}"
        self._real |= {token: found[name] for name, token in names.items()}


def _plain(text: str) -> str:
    return re.escape("".join(text.split()))
