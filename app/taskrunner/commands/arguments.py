"""What can be asked of ``taskrunner task``."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

TASK = "create, get, list, cancel, retry, run, wait for and import tasks, over HTTP"
ACTIONS = {
    "create": "create a task",
    "get": "show a task with its failed attempts",
    "list": "show tasks, newest first",
    "cancel": "cancel tasks",
    "retry": "run finished tasks again",
    "run": "make pending tasks due now",
    "wait": "wait until tasks are finished; 1 unless all are COMPLETED",
    "import": "create the tasks of an NDJSON file, all or none",
}
STATUSES = "PENDING, QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED"
TIME = "RFC 3339, such as 2026-02-20T10:00:00Z"
CREATE = {
    "run_at": ("TIME", str, f"when: {TIME}; without it now"),
    "delay": ("SECONDS", float, "seconds from now, instead of --run-at"),
    "queue": ("NAME", str, "another queue than default"),
    "priority": ("1-4", int, "1 is first; 2 unless given"),
    "max_attempts": ("NUMBER", int, "attempts, the first one included"),
    "timeout": ("SECONDS", float, "time of one attempt"),
    "expires_at": ("TIME", str, "give up if it has not started by then"),
    "unique_key": ("TEXT", str, "at most one live task has it"),
    "on_conflict": ("WORD", str, "what if one has: return, reject, replace, postpone"),
    "metadata": ("JSON", str, "an object of your own"),
    "callback_url": ("URL", str, "where to say how it ended"),
    "idempotency_key": ("TEXT", str, "the same key makes one task a day, however often it is sent"),
}
LIST = {
    "status": ("WORDS", str, f"one or more of {STATUSES}"),
    "task_type": ("NAME", str, "of this type"),
    "queue": ("NAME", str, "of this queue"),
    "created_after": ("TIME", str, TIME),
    "created_before": ("TIME", str, TIME),
}


def add_actions(parser: argparse.ArgumentParser, setup: dict[str, Any], add_settings: Callable[[argparse.ArgumentParser], None]) -> None:
    """The actions of ``taskrunner task``, each with ``--json`` and the settings that say where the service is."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, about in ACTIONS.items():
        one = actions.add_parser(action, help=about, description=about, **setup)
        one.add_argument("--json", action="store_true", default=False, help="answer as JSON, one document a line")
        match action:
            case "create":
                one.add_argument("task_type", metavar="TYPE", help="what runs it")
                one.add_argument("payload", metavar="PAYLOAD", nargs="?", default="{}", help="JSON; - reads it from standard input")
                one.add_argument("--tag", action="append", default=[], metavar="TEXT", help="may be given again")
                one.add_argument("--wait", type=float, default=None, metavar="SECONDS", help="wait so long until it is finished")
                _add(one, CREATE)
            case "list":
                one.add_argument("--tag", action="append", default=[], metavar="TEXT", help="may be given again: tasks that have them all")
                one.add_argument("--limit", type=int, default=50, metavar="NUMBER", help="show so many at most; 50 unless given, 0 is all")
                _add(one, LIST)
            case "import":
                one.add_argument("file", metavar="FILE", help="one task a line, as JSON; - reads standard input")
            case _:
                one.add_argument("ids", metavar="ID", nargs="+")
        if action == "wait":
            one.add_argument("--timeout", dest="patience", type=float, default=None, metavar="SECONDS", help="give up after so long")
        add_settings(one)


def _add(parser: argparse.ArgumentParser, options: Mapping[str, tuple[str, type, str]]) -> None:
    for name, (kind, read, about) in options.items():
        # Names of their own, because the settings have a timeout and max_attempts too.
        parser.add_argument(f"--{name.replace('_', '-')}", dest=f"task.{name}", type=read, metavar=kind, help=about)
