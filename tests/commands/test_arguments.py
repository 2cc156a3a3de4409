"""What the command line reads before anything is done."""

import argparse
from collections.abc import Iterator

import pytest

from taskrunner.cli import _parser, main
from taskrunner.settings import Settings


def options(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from options(inner)
        elif action.metavar == "SECONDS" and action.dest not in Settings.model_fields:
            yield action


@pytest.mark.parametrize("option", [*options(_parser())], ids=lambda option: option.dest)
def test_seconds_are_a_time_that_ends(option: argparse.Action) -> None:
    assert callable(option.type)
    assert option.type("90") == 90
    for text in ("nan", "inf", "-inf", "1e400", "soon", ""):
        with pytest.raises((argparse.ArgumentTypeError, ValueError)):
            option.type(text)


@pytest.mark.parametrize(
    "words",
    [["create", "x", "--delay=inf"], ["create", "x", "--timeout=nan"], ["create", "x", "--wait=-1"], ["wait", "x", "--timeout=1e400"]],
)
def test_what_is_no_time_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["task", *words])
    option, _, text = words[-1].partition("=")
    sentence = f"argument {option}: must be a number of seconds, 0 or more, not {text!r}; see taskrunner --help"
    assert (end.value.code, capsys.readouterr().err) == (2, f"taskrunner: {sentence}\n")
