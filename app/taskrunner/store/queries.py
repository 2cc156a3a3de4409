"""SQL as text in ``sql/*.sql``: each statement has a name, and says which moves of a task it makes.

``-- name: settle`` begins a statement, ``-- moves: QUEUED -> COMPLETED, …`` declares it, ``-- fragment: ending`` begins a piece that
other statements take in as ``{ending}``. Nothing else is ever put together.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

HEAD = re.compile(r"^-- (name|fragment): (\w+)\s*$", re.MULTILINE)
MOVES = re.compile(r"^-- moves: (.+)$", re.MULTILINE)
COMMENT = re.compile(r"^\s*--.*$\n?", re.MULTILINE)
SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Query:
    """A statement: ``moves`` are pairs of status words, with ``new`` where a task begins and ``gone`` where it is deleted."""

    name: str
    moves: tuple[tuple[str, str], ...]
    text: str


@cache
def queries() -> dict[str, Query]:
    """All statements, by name."""
    blocks: dict[str, tuple[str, str]] = {}
    for file in sorted(files("taskrunner.store").joinpath("sql").iterdir(), key=lambda f: f.name):
        if file.name.endswith(".sql"):
            text = file.read_text(encoding="utf-8")
            heads = list(HEAD.finditer(text))
            for head, after in zip(heads, [*heads[1:], None], strict=True):
                if head[2] in blocks:
                    raise ValueError(f"{file.name}: a second {head[2]!r}")
                blocks[head[2]] = (head[1], text[head.end() : after.start() if after else None])
    fragments = {name: COMMENT.sub("", body).strip() for name, (kind, body) in blocks.items() if kind == "fragment"}
    return {name: _query(name, body, fragments) for name, (kind, body) in blocks.items() if kind == "name"}


def sql(name: str) -> str:
    """The text of the statement called ``name``."""
    return queries()[name].text


def _query(name: str, body: str, fragments: dict[str, str]) -> Query:
    moves = tuple((a, b) for line in MOVES.findall(body) for a, b in re.findall(r"(\w+) -> (\w+)", line))
    text = SLOT.sub(lambda slot: fragments[slot[1]], COMMENT.sub("", body).strip())
    return Query(name=name, moves=moves, text=text)
