"""Tasks as people read them, and as programs do."""

import json
import sys
from datetime import datetime
from typing import Any

from taskrunner.client import ApiError, Task

QUIET: tuple[Any, ...] = (None, (), [], {}, "")


class Misused(Exception):
    """What was asked for makes no sense; the message says why."""


def show(task: Task, *, as_json: bool) -> None:
    """A task in full."""
    document = task.model_dump(mode="json", exclude_unset=True)
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    attempts = document.pop("attempts", ())
    for name, value in document.items():
        if value not in QUIET or name == "payload":
            sys.stdout.write(f"{name:<20} {_text(getattr(task, name))}\n")
    for failed in attempts:
        sys.stdout.write(f"attempt {failed['attempt']:<12} {failed['outcome']} {failed['ended_at']} {failed.get('error') or ''}\n")
    sys.stdout.write("\n")


def line(task: Task) -> None:
    """A task in a line."""
    error = f"  {' '.join(task.error.split())[:60]}" if task.error else ""
    sys.stdout.write(f"{task.id}  {task.status:<9}  {_text(task.run_at)}  {task.queue}/{task.task_type}  attempt {task.attempt}{error}\n")


def sentence(error: BaseException) -> str:
    """An error in one line, with every place that is wrong."""
    words = " ".join(str(error).split()) or type(error).__name__
    more = (
        [f"{fault.get('pointer') or fault.get('line')} {fault.get('detail')}" for fault in error.errors[1:4]]
        if isinstance(error, ApiError)
        else []
    )
    return "; ".join([words, *more])


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
