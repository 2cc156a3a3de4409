"""``taskrunner task export``: every task that fits as a line of JSON, newest first, and on with it where it was broken off.

Beside an unfinished FILE lies FILE.place: how many bytes of FILE hold whole pages, the cursor of the next page, and the filters. It is
written after each page, by renaming: whatever kills the export, the next one cuts FILE there and goes on, so that no task is missing or
there twice. A finished FILE has no place beside it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from taskrunner.client import Client
from taskrunner.commands.bar import Bar
from taskrunner.commands.words import Misused, show_json, tasks

PAGE = 500


class _Place(NamedTuple):
    size: int
    tasks: int
    cursor: str | None


async def export(client: Client, name: str, filters: Mapping[str, Any], *, as_json: bool) -> int:
    """Write the tasks to the file, or to standard output for ``-``; 0.

    Raises Misused for a file that is there already and complete, or was begun with other filters.
    """
    if name == "-":
        await _write(client, sys.stdout.buffer, filters, _Place(0, 0, None), None)
        return 0
    path = Path(name)
    note = path.with_name(f"{path.name}.place")
    begun = _begun(path, note, filters)
    _remember(note, begun, filters)
    with path.open("ab") as file:  # noqa: ASYNC230 — a local file is opened at once
        file.truncate(begun.size)
        n, seconds = await _write(client, file, filters, begun, note)
    note.unlink(missing_ok=True)
    if as_json:
        show_json({"file": name, "tasks": n})
    else:
        went_on = f", {begun.tasks:,} of them before" if begun.tasks else ""
        sys.stdout.write(f"{tasks(n)} written to {name} in {seconds:.1f} s{went_on}\n")
    return 0


def _begun(path: Path, note: Path, filters: Mapping[str, Any]) -> _Place:
    """Where to go on."""
    if not note.exists():
        if path.exists():
            raise Misused(f"{path} is there already and complete: name another file, or remove it")
        return _Place(0, 0, None)
    found = orjson.loads(note.read_bytes())
    if found["filters"] != filters:
        raise Misused(f"{path} was begun with other filters ({found['filters']}): give the same, or remove {path} and {note}")
    if (path.stat().st_size if path.exists() else 0) < found["size"]:
        raise Misused(f"{note} belongs to a longer {path} than there is: remove both and begin anew")
    return _Place(found["size"], found["tasks"], found["cursor"])


async def _write(client: Client, file: IO[bytes], filters: Mapping[str, Any], at: _Place, note: Path | None) -> tuple[int, float]:
    """Page after page; how many tasks there are in the end, and how long it took."""
    size, n, cursor = at
    # Only without filters is it known how many there are; finished ones are counted within a minute.
    total = 0 if any(filters.values()) else sum((await client.stats())["tasks"].values())
    bar = Bar(total)
    try:
        while True:
            page = await client.page(cursor, limit=PAGE, **filters)
            if any(task.get("redacted") for task in page.items):
                raise Misused("the token is not good for payloads, and without them it is no export: use one with the scope payloads")
            lines = b"".join(orjson.dumps(task, option=orjson.OPT_APPEND_NEWLINE) for task in page.items)
            file.write(lines)
            file.flush()
            size, n, cursor = size + len(lines), n + len(page.items), page.next_cursor
            bar.move(n, f"{tasks(n)} written")
            if cursor is None:
                return n, bar.seconds
            if note is not None:
                _remember(note, _Place(size, n, cursor), filters)
    finally:
        bar.clear()


def _remember(note: Path, at: _Place, filters: Mapping[str, Any]) -> None:
    fresh = note.with_name(f"{note.name}.new")
    fresh.write_bytes(orjson.dumps({**at._asdict(), "filters": filters}))
    fresh.replace(note)
