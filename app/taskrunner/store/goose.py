"""Reads a file in the format of Goose, as strictly as Goose does: what passes here passes there."""

from dataclasses import dataclass, field
from typing import NoReturn

from taskrunner.domain.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement and the number of its first line."""

    line: int
    text: str


@dataclass(slots=True)
class Script:
    """What a file does: forth, back, and whether in one transaction."""

    version: int
    name: str
    up: list[Statement] = field(default_factory=list)
    down: list[Statement] = field(default_factory=list)
    transaction: bool = True

    def place(self, statement: Statement | None, position: str | None) -> str:
        """File and line of what PostgreSQL complained about: ``position`` counts characters of the statement from 1."""
        if statement is None:
            return self.name
        return f"{self.name}, line {statement.line + statement.text[: int(position or 1) - 1].count(chr(10))}"


def parse(version: int, name: str, text: str) -> Script:
    """The two halves of a file. Raises ConfigurationError with the line of what Goose would not understand."""
    reader = _Reader(Script(version, name))
    for line in text.split("\n"):
        reader.read(line.rstrip("\r"))
    reader.end()
    return reader.script


class _Reader:
    def __init__(self, script: Script) -> None:
        self.script = script
        self._half: list[Statement] | None = None
        self._block = False
        self._lines: list[str] = []
        self._first = 0
        self._number = 0

    def read(self, line: str) -> None:
        self._number += 1
        if line.startswith("--") and line[2:].strip().startswith("+goose"):
            self._annotation(line[2:].strip().removeprefix("+goose").strip())
            return
        if not self._lines:
            if not line.strip() or line.strip().startswith("--"):
                return
            if self._half is None:
                self._fail("the file must begin with '-- +goose Up'")
            self._first = self._number
        self._lines.append(line)
        if not self._block and _ends(line):
            self._finish()

    def end(self) -> None:
        if self._half is None:
            self._fail("'-- +goose Up' is missing")
        self._refuse_open()

    def _annotation(self, words: str) -> None:
        match words:
            case "Up" if self._half is None:
                self._half = self.script.up
            case "Down" if self._half is self.script.up:
                self._refuse_open()
                self._half = self.script.down
            case "StatementBegin" if self._half is not None and not self._block:
                self._refuse_open()
                self._block = True
            case "StatementEnd" if self._block:
                self._block = False
                self._finish()
            case "NO TRANSACTION":
                self.script.transaction = False
            case _:
                self._fail(f"'-- +goose {words}' is not understood here")

    def _finish(self) -> None:
        if self._half is not None and self._lines:
            self._half.append(Statement(self._first, "\n".join(self._lines).strip()))
        self._lines.clear()

    def _refuse_open(self) -> None:
        if self._block:
            self._fail("'-- +goose StatementEnd' is missing")
        if self._lines:
            self._number = self._first
            self._fail("this statement has no semicolon at the end of a line")

    def _fail(self, reason: str) -> NoReturn:
        raise ConfigurationError(f"{self.script.name}, line {self._number}: {reason}")


def _ends(line: str) -> bool:
    last = ""
    for word in line.split():
        if word.startswith("--"):
            break
        last = word
    return last.endswith(";")
