"""The systemd unit and its settings."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from taskrunner.process import MARGIN, _refuse_exposure
from taskrunner.settings import Settings, env_name

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FOLDER / "taskrunner@.service"
ROLES = ("api", "scheduler", "worker")


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    """The options of [Service], each with all its values."""
    found: dict[str, list[str]] = {}
    body = UNIT.read_text().split("[Service]")[1].split("[Install]")[0]
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", body):
        found.setdefault(name, []).append(value)
    return found


def variables(name: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # variables keep their case
    parser.read_string("[all]\n" + (FOLDER / "env" / f"{name}.env").read_text())
    return dict(parser["all"])


@pytest.mark.parametrize("role", ROLES)
def test_the_settings_can_be_read_and_the_role_would_start(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = variables("taskrunner") | variables(role)
    assert set(given) <= {env_name(name) for name in Settings.model_fields}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings(roles=role)  # type: ignore[arg-type]  # as the flag has it
    _refuse_exposure(settings)
    assert (settings.db_dsn is not None) == (role != "worker")


def test_the_unit_runs_the_role_and_gives_it_time(service: dict[str, list[str]]) -> None:
    assert service["ExecStart"] == ["/opt/taskrunner/bin/taskrunner --roles=%i"]
    assert service["EnvironmentFile"] == ["-/etc/taskrunner/taskrunner.env", "-/etc/taskrunner/%i.env"]
    assert int(service["TimeoutStopSec"][0]) > Settings(grace=float(variables("taskrunner")["TASKRUNNER_GRACE"])).grace + MARGIN
    assert service["KillMode"] == ["mixed"], "SIGTERM is for us alone: children are our affair"


def test_certificates_are_handed_to_a_user_who_cannot_read_the_settings_folder(service: dict[str, list[str]]) -> None:
    assert service["DynamicUser"] == ["yes"]
    assert [path.name for path in (FOLDER / "env").iterdir() if "=/etc/" in path.read_text()] == []
    dropin = (FOLDER / "tls.conf").read_text()
    handed = dict(re.findall(r"(?m)^LoadCredential=(\S+):(\S+)$", dropin))
    (words,) = re.findall(r"(?m)^Environment=(.*)$", dropin)
    given = dict(word.split("=") for word in words.split())
    assert set(given) == {env_name(name) for name in ("tls_cert", "tls_key", "tls_ca")}
    assert set(given.values()) == {f"%d/{name}" for name in handed}
    says = (FOLDER.parents[1] / "docs" / "operations.md").read_text()
    assert f"install -m 0600 {' '.join(handed)} /etc/taskrunner/" in says
    assert set(handed.values()) == {f"/etc/taskrunner/{name}" for name in handed}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_to_say_and_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/taskrunner/bin/taskrunner", shutil.which("true") or ""))
    dropin = tmp_path / f"{UNIT.name}.d" / "tls.conf"
    dropin.parent.mkdir()
    shutil.copy(FOLDER / "tls.conf", dropin)
    found = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr.replace(str(tmp_path), "")) == (0, "")
    found = subprocess.run(["systemd-analyze", "security", "--offline=true", unit], capture_output=True, text=True, check=False)
    (level,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
    assert float(level) < 2
