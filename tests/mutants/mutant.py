"""A mutant: a patch that takes one safeguard out, and the tests that must notice.

Its file begins with a header of ``Word: text`` lines (a line that begins with a space goes on with the one before), then comes the patch.

    Removes: what is taken out, in one sentence.
    Red: tests/room/test_file.py::test_name, …    each of them must fail
    Says: words of the failure                     where it is not an assertion
    Green: tests/…                                 instead, for one that changes nothing that can be seen
    Proof: why that is so.

The patch is a unified diff, but places are found by their text alone: the old lines of each hunk must be there exactly once. So a patch
does not go stale by what is written elsewhere in the file, and one that is stale says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class StaleError(Exception):
    """The patch does not fit the tree any more."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """``red`` are the tests that must fail, with ``says`` if not by an assertion; ``green`` those that must not, of one that is equivalent,
    with its ``proof``.
    """

    name: str
    removes: str
    red: tuple[str, ...]
    says: str
    green: tuple[str, ...]
    proof: str
    patch: str

    @property
    def tests(self) -> tuple[str, ...]:
        """What is to be run."""
        return self.red or self.green

    def apply(self, tree: Path) -> dict[Path, str]:
        """The files that it changes, as they are without it. Raises StaleError, and changes nothing then."""
        before: dict[Path, str] = {}
        after: dict[Path, str] = {}
        for name, old, new in _hunks(self.patch):
            path = tree / name
            if not path.is_file():
                raise StaleError(f"{self.name}: there is no {name} any more")
            text = after.get(path) or before.setdefault(path, path.read_text())
            if (n := text.count(old)) != 1:
                raise StaleError(f"{self.name}: in {name} this is there {n} times instead of once:\n{old}")
            after[path] = text.replace(old, new)
        for path, text in after.items():
            path.write_text(text)
        return before


def mutants(folder: Path = HERE / "patches") -> list[Mutant]:
    """All that there are, by name. Raises ValueError for a header that is not complete."""
    return [_read(path) for path in sorted(folder.glob("*.patch"))]


def _read(path: Path) -> Mutant:
    head, mark, patch = path.read_text().partition("--- ")
    words: dict[str, str] = {}
    for line in head.strip().replace("\n ", " ").splitlines():
        word, _, text = line.partition(": ")
        words[word] = " ".join(text.split())
    if not mark or words.keys() not in ({"Removes", "Red"}, {"Removes", "Red", "Says"}, {"Removes", "Green", "Proof"}):
        raise ValueError(f"{path.name}: the header is Removes and Red, or Removes, Green and Proof; it has {', '.join(words) or 'nothing'}")
    red, green = (tuple(filter(None, words.get(word, "").split(", "))) for word in ("Red", "Green"))
    return Mutant(path.stem, words["Removes"], red, words.get("Says", ""), green, words.get("Proof", ""), mark + patch)


def _hunks(patch: str) -> Iterator[tuple[str, str, str]]:
    """File, old lines and new lines of each hunk."""
    name, lines = "", patch.splitlines()
    for is_head, group in groupby(lines, lambda line: line.startswith(("--- ", "+++ ", "@@"))):
        if is_head:
            name = next((line[6:] for line in group if line.startswith("+++ ")), name)
        else:
            hunk = [*group]
            old, new = ("".join(f"{line[1:]}\n" for line in hunk if line[:1] != mark) for mark in "+-")
            yield name, old, new
