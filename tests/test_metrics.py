"""What a running system shows at /metrics is what docs/metrics.md lists, and what the alerts and the dashboard in deploy/ ask for."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import pytest
import yaml
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from taskrunner.process import opened
from taskrunner.settings import Settings

TOP = Path(__file__).parent.parent
DASHBOARD = TOP / "deploy" / "grafana" / "taskrunner.json"
ALERTS = TOP / "deploy" / "prometheus" / "alerts.yaml"
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",), "info": ("_info",)}
# Prometheus adds these to what it scrapes; a dashboard's variables stand where a value does.
ADDED = {"instance", "job"}
VARIABLES = {"$__rate_interval": "5m", "$queue": ".*", "$task_type": ".*"}


class Shown(NamedTuple):
    """A metric as it is shown, with the labels that its samples have."""

    kind: str
    labels: frozenset[str]
    about: str


def parsed(text: str) -> dict[str, Shown]:
    return {
        family.name: Shown(
            family.type, frozenset(label for sample in family.samples for label in sample.labels) - {"le"}, family.documentation
        )
        for family in text_string_to_metric_families(text)
    }


async def busy(http: ClientSession) -> None:
    """Something of everything: tasks that are done, fail, are tried again, are cancelled and wait; a pause."""
    url = str(http._base_url)
    good, bad = ({"task_type": "webhook", "payload": {"url": to, "method": "GET"}} for to in (f"{url}livez", "http://127.0.0.1:1/"))
    tasks = [good, bad | {"max_attempts": 1}, bad | {"backoff": {"kind": "constant", "base": 600}}, {"task_type": "unserved"}]
    async with http.post("/api/tasks/batch", json=tasks) as answer:
        assert answer.status == 201, await answer.text()
        items = (await answer.json())["items"]
    async with http.post(f"/api/tasks/{items[3]['id']}/cancel") as answer:
        assert answer.status == 200
    async with http.post("/api/tasks", json={"task_type": "unserved"}) as answer:
        assert answer.status == 201
    async with http.post("/api/queues/closed/pause") as answer:
        assert answer.status == 200


@pytest.fixture
async def system(dsn: str) -> AsyncIterator[dict[str, Shown]]:
    """The metrics of a process with all roles that has done a little of everything."""
    settings = Settings(
        db_dsn=SecretStr(dsn), http_port=0, scheduler_port=0, worker_port=0, grace=2, webhook_allow=("127.0.0.0/8",), log_level="error"
    )
    async with opened(settings) as where, ClientSession(where["api"]) as http:
        await busy(http)
        while True:
            async with http.get("/metrics") as answer:
                assert answer.status == 200
                found = parsed(await answer.text())
            if all(shown.labels or not LABELLED.search(name) for name, shown in found.items()) and len(found) > 40:
                break
            await asyncio.sleep(0.1)
        yield found


LABELLED = re.compile(
    r"created$|start_delay|finished|retried|settle_|_run_|attempts$|runner_tasks$|oldest_ready|paused|sessions$|dead|http|type_workers"
)


def rows(found: dict[str, Shown]) -> list[str]:
    """The table of docs/metrics.md."""
    return [
        f"| `{name}{'_total' if shown.kind == 'counter' else '_info' if shown.kind == 'info' else ''}` | {shown.kind} "
        f"| {', '.join(f'`{label}`' for label in sorted(shown.labels)) or '–'} | {shown.about} |"
        for name, shown in sorted(found.items())
        if name.startswith("taskrunner_")
    ]


async def test_metrics_are_those_that_are_documented_and_asked_for(system: dict[str, Shown]) -> None:
    documented = re.findall(r"(?m)^\| `taskrunner_.*$", (TOP / "docs" / "metrics.md").read_text())
    assert documented == rows(system), "\n".join(rows(system))
    known = {name + suffix: shown for name, shown in system.items() for suffix in SUFFIXES[shown.kind]}
    wrong = [f"{place}: {complaint}" for place, expression in (*alerts(), *panels()) for complaint in complaints(promql(expression), known)]
    assert wrong == []


def test_a_name_says_its_unit_and_a_counter_that_it_is_one() -> None:
    for line in re.findall(r"(?m)^\| `(taskrunner_\w+)` \| (\w+) \|", (TOP / "docs" / "metrics.md").read_text()):
        name, kind = line
        assert name.endswith("_total") == (kind == "counter")
        assert not re.search(r"_(ms|millis|minutes|hours|kb|mb)(_|$)", name)


def test_every_alert_is_complete() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names) >= 10
    for rule in group["rules"]:
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"Taskrunner[A-Z]\w+", rule["alert"])
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "queue", "task_type"}
    places = set[tuple[int, int]]()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places, panel["title"]
        assert max(x for x, _ in cells) < 24
        places |= cells
        assert panel["type"] == "row" or panel["targets"]


def alerts() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def panels() -> Iterator[tuple[str, str]]:
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if query := re.fullmatch(r"label_values\((\w+), (\w+)\)", str(variable.get("definition"))):
            yield variable["name"], f"sum by ({query[2]}) ({query[1]})"


def promql(expression: str) -> Any:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return promql_parser.parse(expression)


def complaints(node: Any, known: dict[str, Shown]) -> Iterator[str]:
    """What is wrong with an expression: metrics and labels that nobody shows."""
    names, made = set[str](), set[str]()
    wanted: list[str] = []
    for part in parts(node):
        match type(part).__name__:
            case "VectorSelector":
                names.add(part.name)
                labels = known[part.name].labels if part.name in known else frozenset()
                wrong = [matcher.name for matcher in part.matchers.matchers if matcher.name not in labels | ADDED | {"le"}]
                yield from (f"{part.name} has no label {label}" for label in wrong)
            case "AggregateExpr" | "BinaryExpr":
                wanted += labels_of(part.modifier)
            case "Call" if part.func.name == "label_replace":
                made.add(part.args[1].val)
    yield from (f"there is no metric {name}" for name in names - known.keys())
    have = ADDED | {"le"} | made | {label for name in names & known.keys() for label in known[name].labels}
    yield from (f"no metric of it has the label {label}" for label in wanted if label not in have)


def labels_of(modifier: Any) -> list[str]:
    """The labels of by (…), on (…) and the like."""
    found: list[str] = []
    for holder in (modifier, getattr(modifier, "matching", None)):
        found += getattr(holder, "labels", None) or []
    return found


def parts(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "param", "args", "vector_selector"):
        children = getattr(node, name, None)
        for child in children if isinstance(children, list) else [children]:
            if child is not None:
                yield from parts(child)


def test_what_nobody_shows_is_found() -> None:
    known = {"a_total": Shown("counter", frozenset({"queue"}), "")}

    def said(text: str) -> list[str]:
        return list(complaints(promql(text), known))

    assert said('sum by (queue) (rate(a_total{queue=~"$queue"}[$__rate_interval])) > 1') == []
    assert said("rate(b_total[5m])") == ["there is no metric b_total"]
    assert said('a_total{type="x"}') == ["a_total has no label type"]
    assert said("sum by (type) (a_total)") == ["no metric of it has the label type"]
    assert said("a_total unless on(type) a_total") == ["no metric of it has the label type"]
    with pytest.raises(ValueError, match="parenthesis"):
        promql("sum(rate(a_total[5m])")


async def test_a_process_without_the_api_shows_its_own(dsn: str, unused_tcp_port: int) -> None:
    settings = Settings(
        roles=("scheduler", "worker"),
        db_dsn=SecretStr(dsn),
        scheduler_port=0,
        worker_port=0,
        metrics_port=unused_tcp_port,
        grace=2,
        log_level="error",
    )
    async with opened(settings) as where, ClientSession() as http:
        assert where["metrics"] == f"http://127.0.0.1:{unused_tcp_port}/metrics"
        async with http.get(where["metrics"]) as answer:
            found = parsed(await answer.text())
    assert {"taskrunner_worker_slots", "taskrunner_scheduler_slots", "taskrunner_claim_duration_seconds"} <= found.keys()
    assert "taskrunner_database_up" not in found
