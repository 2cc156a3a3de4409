"""The commands of docs/operations.md that copy the manifests, as they stand."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from deploy.kustomize import build, containers

TOP = Path(__file__).parents[2]
OPERATIONS = (TOP / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("builder", ["kubectl", "ours"])
def test_what_the_document_says_gives_the_image_that_the_copy_names(tmp_path: Path, builder: str) -> None:
    if builder == "kubectl" and shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    ((copy, folder),) = re.findall(r"(?m)^(cp -r deploy/kubernetes.*)\nkubectl apply -k (\S+)$", OPERATIONS)
    script = copy.replace("my-taskrunner ", f"{shlex.quote(str(tmp_path / 'my-taskrunner'))} ")
    subprocess.run(["/bin/sh", "-ec", script], cwd=TOP, check=True)
    kustomization = tmp_path / folder / "kustomization.yaml"
    text = kustomization.read_text()
    assert text.count("registry.example.com/taskrunner") == 1
    kustomization.write_text(text.replace("registry.example.com/taskrunner", "mine.example/tasks"))
    if builder == "kubectl":
        made = subprocess.run(["kubectl", "kustomize", kustomization.parent], check=True, capture_output=True, text=True).stdout
        objects = [one for one in yaml.safe_load_all(made) if one]
    else:
        objects = build(kustomization.parent)
    assert {container["image"] for _, container in containers(objects)} == {"mine.example/tasks:0.1.0"}
