"""The command line: what it understands, what it says, how it ends."""

import re
import sys
from pathlib import Path

import pytest

from taskrunner.cli import ACTIONS, COMMANDS, main
from taskrunner.settings import Settings, env_name, flag

SHORT = "is too short: take 20 characters or more, such as those of `openssl rand -hex 20`"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings."""
    for name in Settings.model_fields:
        monkeypatch.delenv(env_name(name), raising=False)


def refused(*argv: str) -> int | str | None:
    """The exit code of a command line that the parser ends."""
    with pytest.raises(SystemExit) as end:
        main(argv)
    return end.value.code


def test_help_lists_every_setting_and_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, setting in Settings.model_fields.items():
        assert re.search(rf"{flag(name)} \S+ {re.escape(str(setting.description))} \[{env_name(name)}[,\]]", text), name
    assert "[HTTP_PORT, default 8080]" in text
    assert "--grace SECONDS" in text
    assert "[TASKRUNNER_ROLES, default api,scheduler,worker]" in text
    assert all(f"{command} {about}" in text for command, about in COMMANDS.items())


def test_help_of_migrate_lists_its_actions(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused("migrate", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"{action} {about}" in text for action, about in ACTIONS.items())


@pytest.mark.parametrize("argv", [["version"], ["--version"]])
def test_version(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    assert re.fullmatch(r"taskrunner \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--http-port=eighty"], "HTTP_PORT (--http-port): must be a valid integer, not 'eighty'"),
        (["--http-port=65536"], "HTTP_PORT (--http-port): must be less than or equal to 65535, not '65536'"),
        (["--roles=api,janitor"], "TASKRUNNER_ROLES (--roles): must be 'api', 'scheduler' or 'worker', not 'janitor'"),
        (["--roles=,"], "TASKRUNNER_ROLES (--roles): name at least one of api, scheduler, worker"),
        (["--scheduler-address=x"], "SCHEDULER_ADDRESS (--scheduler-address): 'x' must be host:port, such as scheduler:10000"),
        (["--api-tokens=hunter2"], f"TASKRUNNER_API_TOKENS (--api-tokens): token 1 {SHORT}"),
        (["health", "--worker-port=-1"], "WORKER_PORT (--worker-port): must be greater than or equal to 0, not '-1'"),
    ],
)
def test_a_bad_setting_is_one_clear_line(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr() == ("", f"taskrunner: {sentence}\n")


def test_a_bad_variable_is_named_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TASKRUNNER_SLOTS", "many")
    monkeypatch.setenv("TASKRUNNER_LEASE", "0")
    assert main([]) == 2
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "taskrunner: TASKRUNNER_LEASE (--lease): must be greater than or equal to 0.5, not '0'",
        "taskrunner: TASKRUNNER_SLOTS (--slots): must be a valid integer, not 'many'",
    ]


@pytest.mark.parametrize("argv", [["--nope"], ["dance"], ["--http-por=1"], ["migrate"], ["migrate", "new"], ["migrate", "up", "--slots=1"]])
def test_what_is_not_understood_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"taskrunner: [^\n]+; see taskrunner --help\n", err)


def test_unknown_variables_are_a_warning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TASKRUNNER_DB_DSN", "postgres:///tasks")
    assert main(["version"]) == 0
    assert capsys.readouterr().err == "taskrunner: warning: TASKRUNNER_DB_DSN is no setting; did you mean DB_DSN?\n"


def test_flags_win_and_may_stand_before_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORKER_PORT", "1")
    assert main(["--roles=scheduler", "--roles=worker", "--scheduler-port=0", "health", "--worker-port=0"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"taskrunner: the {role} cannot be asked: {role.upper()}_PORT is 0, so only its own process knows the port"
        for role in ("scheduler", "worker")
    ]


def test_health_of_nobody_is_a_failure(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", "--roles=api", f"--http-port={unused_tcp_port}"]) == 1
    assert f"the api on 127.0.0.1:{unused_tcp_port} is not ready" in capsys.readouterr().err


def test_migrate_new_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "new", "--directory", str(tmp_path), "add colours"]) == 0
    (made,) = tmp_path.iterdir()
    assert str(made) in capsys.readouterr().out
    assert "-- +goose Up" in made.read_text()


def test_migrate_without_a_database_is_one_clear_line(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "status", f"--db-dsn=postgres://127.0.0.1:{unused_tcp_port}/tasks"]) == 1
    assert re.fullmatch(r"taskrunner: [^\n]+\n", capsys.readouterr().err)


def test_no_setting_needs_more_than_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--help`` and a bad setting must not cost the start of a server: no room is imported for them."""
    rooms = [name for name in sys.modules if re.match(r"taskrunner\.(api|scheduler|store|worker)\b", name)]
    for name in rooms:
        monkeypatch.delitem(sys.modules, name)
    assert main(["version"]) == 0
    assert main(["--slots=0"]) == 2
    assert [name for name in sys.modules if re.match(r"taskrunner\.(api|scheduler|store|worker)\b", name)] == []
