"""Tasks and the rest as people read them, and as programs do."""

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from taskrunner.client import ApiError, Task

QUIET: tuple[Any, ...] = (None, (), [], {}, "")
UNAUTHORIZED = 401


class Misused(Exception):
    """What was asked for makes no sense; the message says why."""


def show(task: Task, *, as_json: bool) -> None:
    """A task in full."""
    if as_json:
        show_json(task)
        return
    document = task.model_dump(mode="json", exclude_unset=True)
    attempts = document.pop("attempts", ())
    for name, value in document.items():
        if value not in QUIET or name == "payload":
            sys.stdout.write(f"{clean(name):<20} {text_of(getattr(task, name))}\n")
    for failed in attempts:
        error = clean(failed.get("error") or "")
        sys.stdout.write(f"attempt {failed['attempt']:<12} {failed['outcome']} {failed['ended_at']} {error}\n")
        for row in (failed.get("traceback") or "").splitlines():
            sys.stdout.write(f"{'':<20} {clean(row)}\n")
    sys.stdout.write("\n")


def show_json(value: BaseModel | Mapping[str, Any]) -> None:
    """A document on a line, at once: whoever reads may wait for it."""
    document = value.model_dump(mode="json", exclude_unset=True) if isinstance(value, BaseModel) else value
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def line(task: Task) -> None:
    """A task in a line."""
    error = f"  {clean(' '.join(task.error.split())[:60])}" if task.error else ""
    where = clean(f"{task.queue}/{task.task_type}")
    sys.stdout.write(f"{task.id}  {task.status:<9}  {text_of(task.run_at)}  {where}  attempt {task.attempt}{error}\n")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines in columns. A heading that begins with ``>`` is that of numbers, which stand to the right."""
    titles = [title.removeprefix(">") for title in head]
    cells = [titles, *([clean(cell) for cell in row] for row in rows)]
    widths = [max(width(row[n]) for row in cells) for n in range(len(head))]
    right = [title.startswith(">") for title in head]
    return ["  ".join(map(_padded, row, widths, right)).rstrip() for row in cells]


def _padded(cell: str, wide: int, right: bool) -> str:  # noqa: FBT001 — mapped over columns
    space = " " * (wide - width(cell))
    return space + cell if right else cell + space


def clean(text: str) -> str:
    """The text without what a terminal would obey: names, errors and payloads are anybody's."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def fitted(text: str, wide: int) -> str:
    """As much of the text as ``wide`` columns hold; what is missing is said by a dot-dot-dot."""
    if width(text) <= wide:
        return text
    while width(text) > max(0, wide - 1):
        text = text[:-1]
    return text + "…" if wide > 0 else ""


def tasks(n: int) -> str:
    """So many tasks."""
    return f"{n:,} task{'' if n == 1 else 's'}"


def are(n: int) -> str:
    """What follows when they are something."""
    return "is" if n == 1 else "are"


def span(seconds: float | None) -> str:
    """A duration: two units at most."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{max(0.0, seconds):.1f} s"
    for size, unit, below, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // below)} {small}"
    raise AssertionError(seconds)


def sentence(error: BaseException) -> str:
    """An error in one line, with every place that is wrong, and what to do where we know it."""
    words = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, ApiError):
        return words
    more = [f"{fault.get('pointer') or fault.get('line')} {fault.get('detail')}" for fault in error.errors[1:4]]
    if error.status == UNAUTHORIZED:
        more.append("set TASKRUNNER_API_TOKEN (--api-token) to a token of the service")
    return "; ".join([words, *more])


def text_of(value: Any) -> str:
    """A value for people."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
