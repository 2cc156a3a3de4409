"""Whoever is woken finds what to do."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from deploy.kustomize import Object

from taskrunner.cli import _parser
from taskrunner.settings import Settings, env_name

TOP = Path(__file__).parents[2]
RUNBOOK = (TOP / "docs" / "runbook.md").read_text()


@pytest.fixture(scope="module")
def alerts() -> list[Object]:
    document = yaml.safe_load((TOP / "deploy" / "prometheus" / "alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"] if "alert" in rule]


def test_each_alert_has_its_page_and_each_page_its_alert(alerts: list[Object]) -> None:
    assert re.findall(r"(?m)^## (\w+)$", RUNBOOK) == [rule["alert"] for rule in alerts]


def test_each_page_says_what_it_means_where_to_look_and_what_to_do() -> None:
    pages = re.split(r"(?m)^## \w+$", RUNBOOK)[1:]
    brief = [page for page in pages if "**Look**" not in page or "**Do**" not in page]
    assert [page.strip().split("\n")[0] for page in brief if "As above" not in page] == []


def test_what_it_says_to_type_can_be_typed() -> None:
    lines = re.findall(r"`(taskrunner [^`]+)`", RUNBOOK) + re.findall(r"(?m)^(taskrunner [^#\n]+)", RUNBOOK)
    assert len(lines) > 8
    for line in lines:
        _parser().parse_args(shlex.split(line)[1:])  # ends the program where it is none


def test_the_settings_and_log_lines_that_it_names_are_there() -> None:
    assert set(re.findall(r"TASKRUNNER_\w+", RUNBOOK)) <= {env_name(name) for name in Settings.model_fields}
    sources = "\n".join(path.read_text() for path in (TOP / "app" / "taskrunner").rglob("*.py"))
    said = re.findall(r"`((?:a|an|the|no|settling) [^`]*)`", RUNBOOK)
    assert len(said) > 5
    assert [line for line in said if line not in sources] == []
