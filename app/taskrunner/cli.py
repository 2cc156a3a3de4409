"""argv → settings → what was asked for. Exit codes: 0 done, 1 it failed, 2 it was asked for wrongly."""

import argparse
import asyncio
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import structlog
from pydantic import SecretStr, ValidationError

from taskrunner.commands.arguments import NOUNS, add_actions, add_json, add_tokens, add_top
from taskrunner.commands.codes import Arguments
from taskrunner.domain.errors import TaskrunnerError
from taskrunner.kit.log import configure
from taskrunner.settings import Settings, env_name, flag, unknown_variables

log = structlog.get_logger("taskrunner")

FAILED, MISUSED = 1, 2
ABOUT = "Runs tasks when their time has come: HTTP API, scheduler and worker in one process, or the ones that --roles names."
COMMANDS = {
    **NOUNS,
    "top": "show what waits and runs now, again and again",
    "doctor": "look for what is wrong with the database and what is around it: 0 healthy, 1 warnings, 2 critical",
    "token": "make, list and revoke tokens of the HTTP API, straight in the database",
    "migrate": "change the schema by hand: up, down, status, or new NAME",
    "health": "ask the roles that run with these settings; 0 when all are ready",
    "version": "print the version",
}
ACTIONS = {
    "up": "apply what is missing, as a starting scheduler does",
    "down": "take back the last file",
    "status": "list the files and when each was applied",
    "new": "write an empty file for NAME",
}
ALONE = ("top", "doctor", "health", "version")  # without actions
ASKED = ("roles", "http_host", "http_port", "scheduler_host", "scheduler_port", "worker_host", "worker_port")
EXAMINED = (
    *("db_dsn", "data_dir", "scheduler_address", "scheduler_host", "scheduler_port", "api_url", "api_token"),
    *("pgbouncer", "tls_cert", "tls_key", "tls_ca", "lease", "cancel_grace", "retention"),
)
KINDS: dict[Any, str] = {float: "SECONDS", int: "NUMBER", Path: "FOLDER"}


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line ``argv`` (``sys.argv`` without it) asks for, and return the exit code."""
    arguments = vars(_parser().parse_args(argv))
    flags: dict[str, Any] = {}
    for name in arguments.keys() & Settings.model_fields.keys():
        value = arguments[name]
        flags[name] = ",".join(value) if isinstance(value, list) else value
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        return _say(MISUSED, *(_misfit(detail) for detail in error.errors()))
    for name, near in unknown_variables(os.environ).items():
        _say(0, f"warning: {name} is no setting" + (f"; did you mean {near}?" if near else ""))
    named = {None: _serve, "migrate": _migrate, "token": _token, "health": _health, "doctor": _doctor, "version": _version}
    return named.get(arguments["command"], _call)(settings, arguments)


# ── what can be asked for ──


def _serve(settings: Settings, _: Arguments) -> int:
    from taskrunner import process

    configure(settings.log_level, settings.log_format)
    try:
        with asyncio.Runner(loop_factory=process.loop_factory()) as runner:
            runner.run(process.run(settings))
    except Exception as error:
        for leaf in _leaves(error):
            plain = isinstance(leaf, TaskrunnerError | OSError)
            log.error(_sentence(leaf), exc_info=None if plain else leaf)  # noqa: TRY400 — a sentence for people needs no traceback
        return FAILED
    return 0


def _migrate(settings: Settings, arguments: Arguments) -> int:
    from taskrunner.process import database
    from taskrunner.store import migrate

    configure(settings.log_level, settings.log_format or "text")
    directory, as_json = arguments["directory"], arguments["json"]
    actions = {"up": migrate.up, "down": migrate.down, "status": migrate.status}

    async def act() -> None:
        async with database(settings) as found:
            done = await actions[arguments["action"]](found.dsn, directory)
        for one in done:
            at = one.applied_at and f"{one.applied_at.isoformat()}Z"
            _answer(str(one), {"version": one.version, "name": one.name, "applied_at": at}, as_json=as_json)
        if not done and not as_json:
            sys.stdout.write("nothing to do\n")

    try:
        if arguments["action"] == "new":
            path = migrate.new(directory or Path("schema"), arguments["name"])
            _answer(str(path), {"file": str(path)}, as_json=as_json)
        else:
            asyncio.run(act())
    except Exception as error:  # noqa: BLE001 — the command ends here, and one sentence says why
        return _say(FAILED, *(_sentence(leaf) for leaf in _leaves(error)))
    return 0


def _health(settings: Settings, arguments: Arguments) -> int:
    from taskrunner.health import troubles

    found = asyncio.run(troubles(settings))
    if arguments["json"]:
        _answer("", {"ready": not found, "troubles": found}, as_json=True)
        return FAILED if found else 0
    return _say(FAILED, *found) if found else 0


def _doctor(settings: Settings, arguments: Arguments) -> int:
    from taskrunner.commands.doctor.report import run

    return run(settings, arguments)


def _call(settings: Settings, arguments: Arguments) -> int:
    from taskrunner.commands.calling import run

    return run(settings, arguments, _say)


def _token(settings: Settings, arguments: Arguments) -> int:
    from taskrunner.commands.tokens import run

    configure(settings.log_level, settings.log_format or "text")
    return run(settings, arguments, _say)


def _version(_: Settings, arguments: Arguments) -> int:
    version = importlib.metadata.version("taskrunner")
    _answer(f"taskrunner {version}", {"version": version}, as_json=arguments.get("json", False))
    return 0


# ── words ──


def _answer(words: str, document: Mapping[str, Any], *, as_json: bool) -> None:
    sys.stdout.write((json.dumps(document) if as_json else words) + "\n")


def _say(code: int, *sentences: str) -> int:
    for sentence in sentences:
        sys.stderr.write(f"taskrunner: {sentence}\n")
    return code


def _misfit(detail: Mapping[str, Any]) -> str:
    """``HTTP_PORT (--http-port) must be a valid integer, not 'x'``. Never shows a secret."""
    name = str(detail["loc"][0])
    reason = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be").split(", unable to parse")[0]
    secret = SecretStr in get_args(Settings.model_fields[name].annotation)
    value = "" if secret or detail["type"] == "value_error" else f", not {detail['input']!r}"
    return f"{env_name(name)} ({flag(name)}): {reason}{value}"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _sentence(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return words if isinstance(error, TaskrunnerError) and words else f"{type(error).__name__}: {words}".removesuffix(": ")


# ── the parser: one flag for each setting ──


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_say(MISUSED, f"{message}; see taskrunner --help"))


def _parser() -> argparse.ArgumentParser:
    # SUPPRESS leaves out what was not given, so that flags before and after a command's name both count and the environment is next.
    setup: dict[str, Any] = {"allow_abbrev": False, "argument_default": argparse.SUPPRESS, "formatter_class": _Help}
    parser = _Parser(prog="taskrunner", usage="taskrunner [COMMAND] [--SETTING=VALUE …]", description=ABOUT, **setup)
    parser.add_argument("--version", action="store_const", const="version", dest="command", help=COMMANDS["version"])
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="taskrunner")
    made = {name: commands.add_parser(name, help=about, description=about, **setup) for name, about in COMMANDS.items()}
    for name, command in made.items():
        command.set_defaults(command=name)
        if name in ALONE:
            add_json(command)
    _add_settings(parser, *Settings.model_fields)
    _add_settings(made["health"], *ASKED)
    for noun in NOUNS:
        add_actions(noun, made[noun], setup, lambda one: _add_settings(one, "api_url", "api_token"))
    add_top(made["top"])
    _add_settings(made["top"], "api_url", "api_token")
    _add_settings(made["doctor"], *EXAMINED)
    add_tokens(made["token"], setup, lambda one: _add_settings(one, "db_dsn", "data_dir"))
    actions = made["migrate"].add_subparsers(dest="action", metavar="ACTION", required=True)
    for action, about in ACTIONS.items():
        one = actions.add_parser(action, help=about, description=about, **setup)
        add_json(one)
        one.add_argument("--directory", type=Path, default=None, metavar="FOLDER", help="Goose files; without it those of this version")
        if action == "new":
            one.add_argument("name", metavar="NAME")
        else:
            _add_settings(one, "db_dsn", "data_dir")
    return parser


class _Help(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=120)


def _add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    group = parser.add_argument_group("settings", "Each is a flag and an environment variable; the flag wins.")
    for name in names:
        setting = Settings.model_fields[name]
        default = setting.get_default(call_default_factory=True, validated_data={})
        several = isinstance(default, tuple)
        shown = ",".join(default) if several else default
        about = f"{setting.description} [{env_name(name)}{'' if shown in (None, '') else f', default {shown}'}]".replace("%", "%%")
        kind = "A,B" if several else KINDS.get(setting.annotation, "TEXT")
        group.add_argument(flag(name), dest=name, metavar=kind, action="append" if several else "store", help=about)
