"""Handlers come from modules that somebody else wrote."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from worker.bench import handler_of

from taskrunner.domain.errors import ConfigurationError
from taskrunner.sdk import Context, task
from taskrunner.worker.loading import all_handlers, import_handlers

HANDLER = "from taskrunner import task\n\n\n@task({!r})\nasync def run(ctx, payload):\n    return {!r}\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    return tmp_path


def write(here: Path, name: str, text: str) -> str:
    (here / f"{name}.py").write_text(text)
    return name


def test_modules_of_the_current_directory_are_found(here: Path) -> None:
    first, second = write(here, "load_one", HANDLER.format("one", 1)), write(here, "load_two", HANDLER.format("two", 2))
    assert set(import_handlers([first, second])) == {"one", "two"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("load_missing", None, "'load_missing' cannot be imported: ModuleNotFoundError: No module named 'load_missing'"),
        ("load_broken", "1 / 0", "'load_broken' cannot be imported: ZeroDivisionError: division by zero"),
        ("load_exits", "raise SystemExit('bye')", "'load_exits' cannot be imported: SystemExit: bye"),
        ("load_empty", "x = 1", "'load_empty' has no handlers; put @task above a function in it"),
        (
            "load_twice",
            HANDLER.format("t", 1) + HANDLER.format("t", 2).replace("def run", "def other"),
            "two handlers for the task type 't'",
        ),
    ],
)
def test_a_module_that_cannot_be_used_is_named_in_one_sentence(here: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        write(here, name, text)
    with pytest.raises(ConfigurationError) as caught:
        import_handlers([name])
    assert said in str(caught.value)
    assert "TASKRUNNER_HANDLERS" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_modules_cannot_both_handle_a_type(here: Path) -> None:
    first, second = write(here, "load_left", HANDLER.format("same", 1)), write(here, "load_right", HANDLER.format("same", 2))
    with pytest.raises(ConfigurationError, match="load_left and load_right both have a handler for the task type 'same'"):
        import_handlers([first, second])
    write(here, "load_again", "from load_left import run")
    assert set(import_handlers([first, "load_again"])) == {"same"}  # the same function, imported twice


def test_a_users_handler_replaces_a_built_in_one_and_says_so(here: Path) -> None:
    @task("email")
    async def email(ctx: Context, payload: Any) -> None: ...

    name = write(here, "load_mail", HANDLER.format("email", 1))
    with capture_logs() as logs:
        handlers = all_handlers({"email": handler_of(email), "webhook": handler_of(email)}, [name])
    assert handlers["email"].function.__module__ == name
    assert [(line["task_type"], line["module"]) for line in logs] == [("email", name)]
