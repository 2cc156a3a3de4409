"""``docs/cli.md`` is what the parser understands: every command, its arguments and options, and nothing else."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskrunner.cli import _parser
from taskrunner.settings import Settings

TEXT = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
WHICH = ("--tag", "--status", "--task-type", "--queue", "--error", "--created-after", "--created-before")
EVERYWHERE = {"--json", "-h"}  # said once


def commands(parser: argparse.ArgumentParser, name: str = "taskrunner") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, by its full name."""
    choices = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not choices or name == "taskrunner":
        yield name, parser
    for found in choices:
        for word, inner in found.items():
            yield from commands(inner, f"{name} {word}")


def row(argument: argparse.Action) -> str:
    return f"| `{argument.option_strings[0]}{f' {argument.metavar}' if argument.metavar else ''}` | {argument.help} |"


COMMANDS = dict(commands(_parser()))


def said(name: str) -> str:
    """The beginning of a command's section, as it must be: heading, usage, what it does, its options."""
    parser = COMMANDS[name]
    positional = [argument for argument in parser._actions if not argument.option_strings and argument.dest not in ("action", "command")]
    positional = [argument for argument in positional if not isinstance(argument, argparse._SubParsersAction)]
    shape = {None: "{}", "?": "[{}]", "*": "[{} …]", "+": "{} …"}
    usage = " ".join([name, *(shape[argument.nargs].format(argument.metavar) for argument in positional)])  # type: ignore[index]
    given = [argument for argument in parser._actions if argument.option_strings and argument.dest not in Settings.model_fields]
    given = [argument for argument in given if argument.option_strings[0] not in EVERYWHERE]
    filters = [argument for argument in given if argument.option_strings[0] in WHICH] if "--status" in parser._option_string_actions else []
    options = [row(argument) for argument in given if argument not in filters]
    if filters:
        options.append(f"| {', '.join(f'`{argument.option_strings[0]}`' for argument in filters)} | [which tasks](#which-tasks) |")
    about = str(parser.description).rstrip(".")
    lines = [f"### `{usage}`", "", f"{about[0].upper()}{about[1:]}."]
    lines += ["", "| option | |", "|---|---|", *options] if options else []
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "taskrunner"])
def test_each_command_is_described_as_it_is(name: str) -> None:
    assert f"\n{said(name)}" in f"\n{TEXT}", f"docs/cli.md needs this:\n\n{said(name)}"


def test_the_filters_are_those_of_the_list() -> None:
    arguments = COMMANDS["taskrunner task list"]._option_string_actions
    assert "\n".join(["| filter | |", "|---|---|", *(row(arguments[name]) for name in WHICH), ""]) in TEXT


def test_no_other_command_is_described() -> None:
    headings = re.findall(r"(?m)^### `(taskrunner[^`]*)`$", TEXT)
    assert {re.sub(r" \[?[A-Z].*", "", heading) for heading in headings} == set(COMMANDS) - {"taskrunner"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_answer_as_json(name: str) -> None:
    if name != "taskrunner":
        assert "--json" in COMMANDS[name]._option_string_actions


def test_every_check_of_doctor_is_described() -> None:
    from taskrunner.commands.doctor.report import NAMES

    assert tuple(re.findall(r"(?m)^\| \*\*(.+?)\*\* \|", TEXT)) == NAMES
