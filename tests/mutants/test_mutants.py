"""The mutants fit the tree as it is. Whether the suite notices them is for `make mutants`."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from mutants.mutant import ROOT, Mutant, StaleError, mutants

ALL = mutants()


@cache
def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


class Paper(type(Path())):  # type: ignore[misc]  # a path whose files are not written
    def write_text(self, *args: object, **options: object) -> int:
        return 0


@pytest.mark.parametrize("mutant", ALL, ids=[mutant.name for mutant in ALL])
def test_it_fits_and_names_tests_that_there_are(mutant: Mutant) -> None:
    changed = mutant.apply(Paper(ROOT))
    assert changed
    assert all(path.relative_to(ROOT).parts[0] in ("app", "schema") for path in changed), "a mutant is of what we ship"
    assert mutant.removes.endswith(".")
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert re.sub(r"\[.*", "", name) in functions_of(ROOT / file), f"there is no {test}"


def test_there_are_enough_and_few_that_are_equivalent() -> None:
    assert len([mutant for mutant in ALL if mutant.red]) >= 30
    assert [mutant.name for mutant in ALL if mutant.green] == ["claim-not-materialized"]


@pytest.mark.parametrize("old", ["no such line", "    pass"])
def test_a_patch_that_does_not_fit_says_so_and_changes_nothing(tmp_path: Path, old: str) -> None:
    text = "def f():\n    pass\ndef g():\n    pass\n"
    (tmp_path / "app.py").write_text(text)
    patch = f"--- a/app.py\n+++ b/app.py\n@@\n-def f():\n+def h():\n@@\n-{old}\n+    return\n"
    with pytest.raises(StaleError, match="times instead of once"):
        Mutant("name", "All.", ("x",), "", (), "", patch).apply(tmp_path)
    assert (tmp_path / "app.py").read_text() == text
