"""What ``kubectl kustomize`` makes of a folder, as far as ours use it: anything else is an error here."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "labels", "images", "patches", "secretGenerator"}
# Where a Secret or a ConfigMap is named.
NAMERS = {"secretRef", "configMapRef", "secretKeyRef", "configMapKeyRef"}


def build(folder: Path) -> list[Object]:
    """The objects of a kustomization."""
    objects = _resources(folder, yaml.safe_load((folder / "kustomization.yaml").read_text()))
    _name(objects, {one["metadata"].pop("x-generated"): one["metadata"]["name"] for one in objects if "x-generated" in one["metadata"]})
    return objects


def find(objects: list[Object], kind: str, name: str = "") -> list[Object]:
    """Those of a kind, and of a name."""
    return [one for one in objects if one["kind"] == kind and name in ("", one["metadata"]["name"])]


def _resources(folder: Path, rules: Object, objects: list[Object] | None = None) -> list[Object]:
    assert set(rules) <= KNOWN, f"{folder}: {set(rules) - KNOWN}"
    objects = [] if objects is None else objects
    for name in rules.get("resources", ()):
        path = folder / name
        if path.is_dir():
            objects += _resources(path, yaml.safe_load((path / "kustomization.yaml").read_text()))
        else:
            objects += [one for one in yaml.safe_load_all(path.read_text()) if one]
    objects += [_secret(one) for one in rules.get("secretGenerator", ())]
    for name in rules.get("components", ()):
        path = folder / name
        component = yaml.safe_load((path / "kustomization.yaml").read_text())
        assert component["kind"] == "Component"
        _resources(path, component, objects)
    _change(folder, rules, objects)
    return objects


def _change(folder: Path, rules: Object, objects: list[Object]) -> None:
    """Patches, labels, the namespace, images."""
    for patch in rules.get("patches", ()):
        targets = find(objects, patch["target"]["kind"], patch["target"]["name"])
        assert targets, f"{folder}: nothing to patch"
        for target in targets:
            _patch(target, yaml.safe_load(patch["patch"]))
    for label in rules.get("labels", ()):
        for one in objects:
            one["metadata"].setdefault("labels", {}).update(label["pairs"])
    for one in objects:
        if "namespace" in rules and one["kind"] != "Namespace":
            one["metadata"]["namespace"] = rules["namespace"]
        for image in rules.get("images", ()):
            for container in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"


def _secret(rule: Object) -> Object:
    data = dict(literal.split("=", 1) for literal in rule["literals"])
    plain = rule.get("options", {}).get("disableNameSuffixHash", False)
    mark = "" if plain else "-" + hashlib.sha256(repr(data).encode()).hexdigest()[:10]
    metadata = {"name": f"{rule['name']}{mark}", "x-generated": rule["name"]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def _patch(target: Object, steps: list[Object]) -> None:
    for step in steps:
        assert step["op"] == "remove"
        *way, last = step["path"].strip("/").split("/")
        place = target
        for key in way:
            place = place[key]
        del place[last]


def _name(place: Any, names: dict[str, str]) -> None:
    """Where a generated object is named, put its whole name."""
    if isinstance(place, dict):
        for key, value in place.items():
            if key in NAMERS:
                value["name"] = names.get(value["name"], value["name"])
            elif key == "secret" and "secretName" in value:
                value["secretName"] = names.get(value["secretName"], value["secretName"])
            else:
                _name(value, names)
    elif isinstance(place, list):
        for value in place:
            _name(value, names)


def containers(objects: list[Object]) -> list[tuple[Object, Object]]:
    """Each deployment with its one container."""
    found = []
    for one in find(objects, "Deployment"):
        (container,) = one["spec"]["template"]["spec"]["containers"]
        found.append((one, container))
    return copy.copy(found)
