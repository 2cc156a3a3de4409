"""The manifests of deploy/kubernetes: what a cluster would refuse, and what it would take and then not work."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from deploy.image import instructions
from deploy.kustomize import Object, build, containers, find

from taskrunner.api import role as api
from taskrunner.api.openapi import document
from taskrunner.api.shapes import Now, Stats
from taskrunner.cli import COMMANDS
from taskrunner.domain.access import Scope, token_of
from taskrunner.process import MARGIN, _refuse_exposure
from taskrunner.settings import Settings, env_name
from taskrunner.store.tasks import open_store

TOP = Path(__file__).parents[2]
FOLDER = TOP / "deploy" / "kubernetes"
OTHERS = {"cert-manager.io/v1", "keda.sh/v1alpha1", "monitoring.coreos.com/v1"}  # kinds that a cluster learns from those
ROLES = {"api", "scheduler", "worker"}
KNOWN = {env_name(name): name for name in Settings.model_fields}


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return build(FOLDER / "example")


def environment(objects: list[Object], container: Object) -> dict[str, str]:
    """The variables of a container, as the cluster would put them together."""
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        kind, reference = ("Secret", source["secretRef"]) if "secretRef" in source else ("ConfigMap", source["configMapRef"])
        (one,) = find(objects, kind, reference["name"])
        found |= one.get("stringData") or one["data"]
    return found | {one["name"]: one["value"] for one in container.get("env", ())}


def image_environment() -> dict[str, str]:
    """What the image sets."""
    last: dict[str, str] = {}
    for word, rest in instructions(TOP / "Dockerfile"):
        last = {} if word == "FROM" else last
        if word == "ENV":
            last |= dict(part.split("=", 1) for part in shlex.split(rest))
    return last


@contextmanager
def settings_of(objects: list[Object], container: Object, patch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """As the process would read them."""
    with patch.context() as here:
        for name, value in environment(objects, container).items():
            here.setenv(name, value)
        (roles,) = [word.removeprefix("--roles=") for word in container["args"]]
        yield Settings(roles=roles)


def test_every_object_is_what_its_schema_says(objects: list[Object]) -> None:
    for one in objects:
        if one["apiVersion"] not in OTHERS:
            kubernetes_validate.validate(one, "1.37", strict=True)
    assert {one["apiVersion"] for one in objects} >= OTHERS


def test_the_schemas_would_refuse(objects: list[Object]) -> None:
    """So that the test above can fail."""
    spec = find(objects, "Deployment", "taskrunner-api")[0]["spec"]
    broken = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": {**spec, "replicaz": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replicaz"):
        kubernetes_validate.validate(broken, "1.37", strict=True)


def test_names_are_unique_and_all_are_in_one_namespace(objects: list[Object]) -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    (namespace,) = find(objects, "Namespace")
    assert {one["metadata"].get("namespace") for one in objects if one is not namespace} == {namespace["metadata"]["name"]}
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_there_is_a_deployment_for_each_role_and_two_of_what_must_not_go(objects: list[Object]) -> None:
    found = {container["args"][0]: one for one, container in containers(objects)}
    assert set(found) == {f"--roles={role}" for role in ROLES}
    base = {one["metadata"]["name"]: one["spec"]["replicas"] for one in find(build(FOLDER / "base"), "Deployment")}
    assert base == {"taskrunner-api": 2, "taskrunner-scheduler": 2, "taskrunner-worker": 2}
    (scaled,) = find(objects, "ScaledObject")
    assert "replicas" not in found["--roles=worker"]["spec"], "two would fight for it"
    assert scaled["spec"]["scaleTargetRef"]["name"] == found["--roles=worker"]["metadata"]["name"]


def test_every_selector_finds_exactly_its_pods(objects: list[Object]) -> None:
    pods = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one, _ in containers(objects)}

    def chosen(labels: dict[str, str]) -> list[str]:
        return [name for name, own in pods.items() if labels.items() <= own.items()]

    for one, _ in containers(objects):
        name, spec = one["metadata"]["name"], one["spec"]
        assert chosen(spec["selector"]["matchLabels"]) == [name]
        (spread,) = spec["template"]["spec"]["topologySpreadConstraints"]
        assert chosen(spread["labelSelector"]["matchLabels"]) == [name]
        (budget,) = find(objects, "PodDisruptionBudget", name)
        assert chosen(budget["spec"]["selector"]["matchLabels"]) == [name]
        assert budget["spec"]["maxUnavailable"] == 1
    for service in find(objects, "Service"):
        assert chosen(service["spec"]["selector"]) == [service["metadata"]["name"]]
    for policy in find(objects, "NetworkPolicy"):
        assert chosen(policy["spec"]["podSelector"].get("matchLabels", {}))


def test_ports_have_one_name_and_are_what_the_settings_say(objects: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    ports = {}
    for one, container in containers(objects):
        named = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        ports[one["metadata"]["name"]] = named
        with settings_of(objects, container, monkeypatch) as settings:
            for role, port in (("http", settings.http_port), ("grpc", settings.scheduler_port), ("metrics", settings.metrics_port)):
                assert named.get(role, port) == port
            listens = {"http": "HTTP_HOST", "metrics": "HTTP_HOST", "grpc": "SCHEDULER_HOST"}
            hosts = image_environment() | environment(objects, container)
            assert {hosts[listens[role]] for role in named} == {"0.0.0.0"}, "a port that nobody else reaches"
    for service in find(objects, "Service"):
        assert all(port["targetPort"] in ports[service["metadata"]["name"]] for port in service["spec"]["ports"])
    (scheduler,) = find(objects, "Service", "taskrunner-scheduler")
    assert scheduler["spec"]["clusterIP"] == "None", "a worker must see every scheduler"


def test_a_worker_finds_the_schedulers_and_their_certificate_is_for_that_name(
    objects: list[Object], monkeypatch: pytest.MonkeyPatch
) -> None:
    (worker,) = [container for one, container in containers(objects) if one["metadata"]["name"] == "taskrunner-worker"]
    with settings_of(objects, worker, monkeypatch) as settings:
        (address,) = settings.scheduler_address
    host, _, port = address.rpartition(":")
    (service,) = find(objects, "Service", host)
    assert int(port) in [one["port"] for one in service["spec"]["ports"]]
    (certificate,) = find(objects, "Certificate", "taskrunner-scheduler")
    assert {host, "localhost"} <= set(certificate["spec"]["dnsNames"])


def test_only_settings_are_set_and_all_can_be_read(objects: list[Object], monkeypatch: pytest.MonkeyPatch) -> None:
    """And a process would start: nobody listens for others without tokens or without certificates that both sides show."""
    for _, container in containers(objects):
        assert set(environment(objects, container)) <= set(KNOWN)
        with settings_of(objects, container, monkeypatch) as settings:
            _refuse_exposure(settings)
            assert not settings.insecure
            (role,) = settings.roles
            assert (settings.db_dsn is not None) == (role != "worker"), "a worker has no business with the database"
            assert bool(settings.api_tokens) == (role == "api")
            assert (settings.tls_ca is not None) == (role != "api")
            grace = find(objects, "Deployment", f"taskrunner-{role}")[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
            sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert grace > settings.grace + MARGIN + sleep


def test_every_secret_and_every_configmap_that_is_named_is_there(objects: list[Object]) -> None:
    """By us, by the certificates, or by the generator of the example; the base says what it wants brought."""
    made = {one["metadata"]["name"] for one in find(objects, "Secret")}
    made |= {one["spec"]["secretName"] for one in find(objects, "Certificate")}
    for one, container in containers(objects):
        volumes = one["spec"]["template"]["spec"]["volumes"]
        secrets = [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source]
        secrets += [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]
        assert set(secrets) <= made
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in volumes}
        tls = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tls"]
        files = [one["value"] for one in container["env"] if one["name"].startswith("TASKRUNNER_TLS_")]
        assert [file.rpartition("/")[0] for file in files] == tls * 3
        assert {file.rpartition("/")[2] for file in files} in ({"tls.crt", "tls.key", "ca.crt"}, set())
    bring = (FOLDER / "base" / "kustomization.yaml").read_text()
    assert all(f"taskrunner-{name}" in bring for name in ("database", "tokens", "scheduler-tls", "worker-tls"))


async def test_probes_ask_what_is_there(objects: list[Object], dsn: str) -> None:
    async with open_store(dsn, Settings()) as store:
        paths = document(api.Rooms(store).routes())["paths"]
    for one, container in containers(objects):
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(name)
            if probe is None:
                assert (one["metadata"]["name"], name) == ("taskrunner-worker", "livenessProbe")
            elif "httpGet" in probe:
                assert paths[probe["httpGet"]["path"]]["get"]["security"] == []
                assert probe["httpGet"]["port"] in [port["name"] for port in container["ports"]]
            else:
                program, command, *rest = probe["exec"]["command"]
                assert (program, command in COMMANDS, rest) == ("taskrunner", True, container["args"])


async def test_the_backlog_is_asked_where_it_is_with_a_token_that_may(objects: list[Object], dsn: str) -> None:
    (scaled,) = find(objects, "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    where = urlsplit(trigger["metadata"]["url"])
    name, namespace, svc = (where.hostname or "").split(".")
    (service,) = find(objects, "Service", name)
    assert (namespace, svc) == (service["metadata"]["namespace"], "svc"), "KEDA asks from a namespace of its own"
    async with open_store(dsn, Settings()) as store:
        security = document(api.Rooms(store).routes())["paths"][where.path]["get"]["security"]
    ((scope,),) = security[0].values()
    member, name = trigger["metadata"]["valueLocation"].split(".")
    assert Stats.__annotations__[member] is Now
    assert name in Now.__annotations__
    (authentication,) = find(objects, "TriggerAuthentication", trigger["authenticationRef"]["name"])
    (reference,) = authentication["spec"]["secretTargetRef"]
    assert scopes_of_secret(objects, reference) == {Scope(scope)}


async def test_metrics_are_asked_where_they_are_with_a_token_that_may(objects: list[Object], dsn: str) -> None:
    async with open_store(dsn, Settings()) as store:
        paths = document(api.Rooms(store).routes())["paths"]
    seen: set[str] = set()
    for monitor in find(objects, "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        chosen = monitor["spec"]["selector"]
        roles = {chosen["matchLabels"].get("app.kubernetes.io/component")} - {None}
        roles |= {role for rule in chosen.get("matchExpressions", ()) for role in rule["values"]}
        seen |= roles
        for role in roles:
            (container,) = [container for _, container in containers(objects) if container["name"] == role]
            assert endpoint["port"] in [port["name"] for port in container["ports"]]
        if roles == {"api"}:
            ((scope,),) = paths[endpoint["path"]]["get"]["security"][0].values()
            assert scopes_of_secret(objects, endpoint["authorization"]["credentials"]) == {Scope(scope)}
    assert seen == ROLES


def scopes_of_secret(objects: list[Object], reference: Object) -> frozenset[Scope]:
    """What the token that is in a secret is good for, by the settings of the API."""
    (tokens,) = [one["stringData"] for one in find(objects, "Secret") if "TASKRUNNER_API_TOKENS" in one["stringData"]]
    known = {secret: scopes for scopes, secret in map(token_of, tokens["TASKRUNNER_API_TOKENS"].split(","))}
    (given,) = [one["stringData"] for one in find(objects, "Secret") if one["metadata"]["name"] == reference["name"]]
    return known[given[reference["key"]]]


def test_containers_may_do_little(objects: list[Object]) -> None:
    for one, container in containers(objects):
        pod, own = one["spec"]["template"]["spec"], container["securityContext"]
        assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"], own["capabilities"]) == (True, False, {"drop": ["ALL"]})
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert find(objects, "ServiceAccount", pod["serviceAccountName"])
        assert container["resources"]["limits"]["memory"]
        assert container["image"].count(":") == 1
        assert not container["image"].endswith(":latest")


def test_only_named_peers_are_let_in(objects: list[Object]) -> None:
    """Every pod has a policy for both ways, and the way of a task is open."""
    policies = {one["metadata"]["name"]: one["spec"] for one in find(objects, "NetworkPolicy")}
    closed = policies["taskrunner"]
    assert set(closed["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in closed
    (callers,) = policies["taskrunner-scheduler"]["ingress"]
    assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in callers["from"]] == ["worker"]
    to_scheduler, outside = policies["taskrunner-worker"]["egress"]
    assert to_scheduler["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "scheduler"
    assert 5432 not in [port["port"] for port in outside["ports"]], "workers never touch the database"
    database = policies["taskrunner-database"]
    assert database["podSelector"]["matchExpressions"][0]["values"] == ["api", "scheduler"]
    names = {port["name"] for _, container in containers(objects) for port in container.get("ports", ())}
    named = {port["port"] for spec in policies.values() for rule in spec.get("ingress", ()) for port in rule["ports"]}
    assert named <= names


def test_the_image_is_the_one_that_compose_builds(objects: list[Object]) -> None:
    compose: dict[str, Any] = yaml.safe_load((TOP / "compose.yaml").read_text())
    rules = yaml.safe_load((FOLDER / "example" / "kustomization.yaml").read_text())
    assert [image["name"] for image in rules["images"]] == [compose["services"]["api"]["image"]]
