"""What can be asked of the commands that speak to the service over HTTP."""

import argparse
import math
from collections.abc import Callable, Mapping
from typing import Any

from taskrunner.domain.access import Scope

NOUNS = {
    "task": "create, get, list, cancel, retry, run, wait for, watch, import and export tasks; errors by kind",
    "worker": "list worker sessions, and drain them",
    "queue": "list queues, pause and resume them",
    "type": "list task types, pause and resume them",
}
ACTIONS = {
    "create": "create a task",
    "get": "show a task with its failed attempts",
    "list": "show tasks, newest first",
    "errors": "show FAILED tasks by type and kind of error",
    "cancel": "cancel tasks: these, or all that fit",
    "retry": "run finished tasks again: these, or all that fit",
    "run": "make pending tasks due now",
    "wait": "wait until tasks are finished; 1 unless all are COMPLETED",
    "watch": "show what happens: to these tasks until they are finished, or to all that fit, for ever",
    "import": "create the tasks of an NDJSON file, all or none",
    "export": "write tasks into an NDJSON file; on with it where it was broken off",
}
FLEET = {
    "worker": {"list": "show worker sessions", "drain": "let workers finish what they run, and end"},
    "queue": {
        "list": "show what waits and runs in each queue",
        "pause": "start nothing more of these queues; what runs goes on",
        "resume": "go on with these queues",
    },
    "type": {
        "list": "show what waits and runs of each type",
        "pause": "start nothing more of these types; what runs goes on",
        "resume": "go on with these types",
    },
}
TOKENS = {
    "create": "make a token and print it, this once: only its hash is kept",
    "list": "show all tokens, those that are live first",
    "revoke": "let tokens in no more, a second from now",
}
STATUSES = "PENDING, QUEUED, RUNNING, COMPLETED, FAILED, CANCELLED"
TIME = "RFC 3339, such as 2026-02-20T10:00:00Z"
Option = tuple[str, Callable[[str], Any], str]  # what it is, how it is read, what it is for


def _seconds(text: str) -> float:
    """A time that comes to an end: what is none would be sent as null, or waited for until nobody knows when."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, 0 or more, not {text!r}")
    return seconds


CREATE: Mapping[str, Option] = {
    "run_at": ("TIME", str, f"when: {TIME}; without it now"),
    "delay": ("SECONDS", _seconds, "seconds from now, instead of --run-at"),
    "queue": ("NAME", str, "another queue than default"),
    "priority": ("1-4", int, "1 is first; 2 unless given"),
    "max_attempts": ("NUMBER", int, "attempts, the first one included"),
    "timeout": ("SECONDS", _seconds, "time of one attempt"),
    "expires_at": ("TIME", str, "give up if it has not started by then"),
    "unique_key": ("TEXT", str, "at most one live task has it"),
    "on_conflict": ("WORD", str, "what if one has: return, reject, replace, postpone"),
    "metadata": ("JSON", str, "an object of your own"),
    "callback_url": ("URL", str, "where to say how it ended"),
    "idempotency_key": ("TEXT", str, "the same key makes one task a day, however often it is sent"),
}
FILTERS = {
    "status": ("WORDS", str, f"one or more of {STATUSES}"),
    "task_type": ("NAME", str, "of this type"),
    "queue": ("NAME", str, "of this queue"),
}
MORE = {
    "error": ("TEXT", str, "with an error of this kind, as `taskrunner task errors` shows it"),
    "created_after": ("TIME", str, TIME),
    "created_before": ("TIME", str, TIME),
}


Setup = Mapping[str, Any]
AddSettings = Callable[[argparse.ArgumentParser], None]


def add_actions(noun: str, parser: argparse.ArgumentParser, setup: Setup, add_settings: AddSettings) -> None:
    """The actions of a noun, each with ``--json`` and the settings that say where the service is."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, about in (ACTIONS if noun == "task" else FLEET[noun]).items():
        one = actions.add_parser(action, help=about, description=about, **setup)
        add_json(one)
        if noun == "task":
            _add_task(one, action)
        elif action == "drain":
            one.add_argument("sessions", metavar="SESSION", nargs="+")
            one.add_argument(
                "--wait", type=_seconds, default=None, metavar="SECONDS", help="wait so long until they have ended; 1 unless all have"
            )
        elif action != "list":
            one.add_argument("names", metavar="NAME", nargs="+")
        add_settings(one)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Every command has it."""
    parser.add_argument("--json", action="store_true", default=False, help="answer as JSON, one document a line")


def add_top(parser: argparse.ArgumentParser) -> None:
    """What ``taskrunner top`` understands."""
    parser.add_argument("--interval", type=_seconds, default=2.0, metavar="SECONDS", help="between two pictures; 2 unless given")


def add_tokens(parser: argparse.ArgumentParser, setup: dict[str, Any], add_settings: Callable[[argparse.ArgumentParser], None]) -> None:
    """The actions of ``taskrunner token``, each with the settings that say where the database is."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, about in TOKENS.items():
        one = actions.add_parser(action, help=about, description=about, **setup)
        add_json(one)
        if action == "create":
            one.add_argument("name", metavar="NAME", help="who or what will have it")
            one.add_argument("--scopes", required=True, metavar="A,B", help=f"what it is good for: {', '.join(Scope)}")
            one.add_argument(
                "--expires-in", type=_seconds, default=None, metavar="SECONDS", help="let it in for so long; without it for ever"
            )
        if action == "revoke":
            one.add_argument("names", metavar="NAME", nargs="+", help="a name, or an id as `taskrunner token list` shows it")
        add_settings(one)


def _add_task(one: argparse.ArgumentParser, action: str) -> None:
    match action:
        case "create":
            one.add_argument("task_type", metavar="TYPE", help="what runs it")
            one.add_argument("payload", metavar="PAYLOAD", nargs="?", default="{}", help="JSON; - reads it from standard input")
            one.add_argument("--tag", action="append", default=[], metavar="TEXT", help="may be given again")
            one.add_argument("--wait", type=_seconds, default=None, metavar="SECONDS", help="wait so long until it is finished")
            _add(one, CREATE)
        case "list":
            one.add_argument("--limit", type=int, default=50, metavar="NUMBER", help="show so many at most; 50 unless given, 0 is all")
            _add_filters(one, FILTERS | MORE)
        case "export":
            one.add_argument("file", metavar="FILE", help="a new one, or one that was broken off; - writes to standard output")
            _add_filters(one, FILTERS | MORE)
        case "watch":
            one.add_argument(
                "ids", metavar="ID", nargs="*", default=[], help="only these, until they are finished; 1 unless all are COMPLETED"
            )
            one.add_argument("--after", default=None, metavar="EVENT_ID", help="begin with what finished after that event")
            _add_filters(one, FILTERS)
        case "cancel" | "retry":
            one.add_argument("ids", metavar="ID", nargs="*", default=[], help="only these; else say by filters which are meant")
            one.add_argument("--yes", action="store_true", default=False, help="do not ask before all that fit are changed")
            _add_filters(one, FILTERS | MORE)
        case "errors":
            one.add_argument("--window", type=int, default=86_400, metavar="SECONDS", help="how far back; a day unless given")
            _add(one, {"task_type": FILTERS["task_type"]})
        case "import":
            one.add_argument("file", metavar="FILE", help="one task a line, as JSON; - reads standard input")
        case _:
            one.add_argument("ids", metavar="ID", nargs="+")
    if action == "wait":
        one.add_argument("--timeout", dest="patience", type=_seconds, default=None, metavar="SECONDS", help="give up after so long")


def _add_filters(parser: argparse.ArgumentParser, options: Mapping[str, Option]) -> None:
    parser.add_argument("--tag", action="append", default=[], metavar="TEXT", help="may be given again: tasks that have them all")
    _add(parser, options)


def _add(parser: argparse.ArgumentParser, options: Mapping[str, Option]) -> None:
    for name, (kind, read, about) in options.items():
        # Names of their own, because the settings have a timeout and max_attempts too.
        parser.add_argument(f"--{name.replace('_', '-')}", dest=f"task.{name}", type=read, metavar=kind, help=about)
