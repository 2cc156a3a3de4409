"""`make mutants`: takes each safeguard out of a copy of the tree and sees that the suite notices.

    python -m mutants.run [NAME …] [--jobs N]

First the tests that the mutants name must be green on the tree as it is. Then each mutant's tests must fail, all of them, and for the right
reason: by an assertion or by waiting in vain, not because something cannot be imported or called.
"""

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from conftest import FAST, SERVER, in_memory
from mutants.mutant import ROOT, Mutant, StaleError, mutants

from taskrunner.store.embedded import embedded_postgres

PARTS = ("app", "proto", "schema", "tests", "docs", "deploy", "examples", "pyproject.toml", "README.md", "compose.yaml", "Dockerfile")
LONGEST = 240.0  # seconds for the tests of one mutant
WRONG = re.compile(r"\w*(Import|ModuleNotFound|Syntax|Name|Attribute|Type|Key)Error\b|psycopg\.errors\.")  # as the report begins
RIGHT = re.compile(r"AssertionError|^assert |TimeoutError|DID NOT RAISE|Failed: Timeout", re.MULTILINE)


class Seen(NamedTuple):
    """How the tests ended: by name, why each of them failed. ``log`` is what pytest said, ``trouble`` what kept it from running."""

    passed: set[str]
    failed: dict[str, str]
    trouble: str
    log: str


def copy(folder: Path) -> Path:
    """A tree to be changed, without what is built or kept beside it."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignore = shutil.ignore_patterns("__pycache__", ".*_cache", "node_modules")
            shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=ignore)
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, folder / part)
    folder.chmod(0o755)
    return folder


async def pytest(tree: Path, tests: Sequence[str]) -> Seen:
    """Run these tests there."""
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-m", "", "-p", "no:cacheprovider", "-p", "no:schemathesis", f"--junit-xml={report}", "--tb=short"]
    environment = os.environ | {"PYTHONPATH": str(tree / "app"), SERVER: str(tree.parent)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "pytest", *options, *tests),
        cwd=tree,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LONGEST):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        return Seen(set(), {}, f"the tests did not end within {LONGEST:g} s", "")
    log = said.decode(errors="replace")
    if not report.exists():
        return Seen(set(), {}, "pytest did not run", log)
    passed: set[str] = set()
    failed: dict[str, str] = {}
    trouble = ""
    for case in ET.parse(report).getroot().iter("testcase"):
        name = case.get("name", "")
        if (error := case.find("error")) is not None:
            trouble = f"{name}: {error.get('message', '')}"
        elif (failure := case.find("failure")) is not None:
            failed[name] = f"{failure.get('message', '')}\n{failure.text or ''}"
        elif case.find("skipped") is not None:
            trouble = f"{name} was skipped"
        else:
            passed.add(name)
    return Seen(passed, failed, trouble, log)


def judge(mutant: Mutant, seen: Seen) -> str:
    """What is wrong with how its tests ended; nothing when all is as it should be."""
    if mutant.green:
        return (
            ""
            if seen.passed and not seen.failed and not seen.trouble
            else f"said to be equivalent, and is not: {seen.trouble or [*seen.failed]}"
        )
    if seen.trouble and not seen.failed:
        return f"no test ran to its end: {seen.trouble.splitlines()[0]}"
    for test in mutant.red:
        name = test.rpartition("::")[2]
        reasons = [why for failed, why in seen.failed.items() if failed == name or failed.startswith(f"{name}[")]
        if not reasons:
            return f"SURVIVED: {test} is green without it"
        if not any(mutant.says in why if mutant.says else RIGHT.search(why) and not WRONG.match(why) for why in reasons):
            return f"red for the wrong reason: {reasons[0].splitlines()[0][:200]}"
    return ""


async def work(tree: Path, todo: list[Mutant], verdicts: dict[str, str], *, loud: bool) -> None:
    """Take mutants one after the other until none is left."""
    while todo:
        mutant = todo.pop(0)
        began = time.monotonic()
        log = ""
        try:
            before = mutant.apply(tree)
        except StaleError as error:
            verdicts[mutant.name] = str(error)
        else:
            seen = await pytest(tree, mutant.tests)
            log = seen.log
            for path, text in before.items():
                path.write_text(text)
            verdicts[mutant.name] = judge(mutant, seen)
        verdict = verdicts[mutant.name] or ("red" if mutant.red else "green, as proved")
        print(f"{mutant.name:<32} {time.monotonic() - began:6.1f} s  {verdict}", flush=True)
        if loud and verdicts[mutant.name]:
            print(log)


async def main(names: Sequence[str], jobs: int, *, loud: bool, trusting: bool) -> int:
    """0 when every mutant is red that should be."""
    chosen = [mutant for mutant in mutants() if not names or mutant.name in names]
    if unknown := set(names) - {mutant.name for mutant in chosen}:
        print(f"there is no mutant named {', '.join(sorted(unknown))}; their files are in tests/mutants/patches", file=sys.stderr)
        return 2
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=in_memory(), prefix="mutants-", ignore_cleanup_errors=True)))
        folder.chmod(0o755)
        await stack.enter_async_context(embedded_postgres(folder / "postgres", options=FAST))  # one for all: starting it takes longest
        trees = [copy(Path(tempfile.mkdtemp(dir=folder))) for _ in range(min(jobs, len(chosen)))]
        if not trusting:
            tests = sorted({test for mutant in chosen for test in mutant.tests})
            print(f"{len(tests)} tests on the tree as it is …", flush=True)
            seen = await pytest(trees[0], tests)
            if seen.failed or seen.trouble:
                print(seen.log, f"not green as it is: {', '.join(seen.failed) or seen.trouble}", sep="\n", file=sys.stderr)
                return 1
        verdicts: dict[str, str] = {}
        async with asyncio.TaskGroup() as group:
            todo = [*chosen]
            for tree in trees:
                group.create_task(work(tree, todo, verdicts, loud=loud))
    bad = [name for name, verdict in verdicts.items() if verdict]
    print(f"{len(chosen) - len(bad)} of {len(chosen)} as they should be" + (f"; not: {', '.join(sorted(bad))}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="takes each safeguard out and sees that the suite notices")
    parser.add_argument("names", nargs="*", help="these mutants only")
    parser.add_argument("--jobs", type=int, default=2, help="so many at once")
    parser.add_argument("--loud", action="store_true", help="show what pytest said about those that are not as they should be")
    parser.add_argument("--trusting", action="store_true", help="do not run the tests on the tree as it is before")
    asked = parser.parse_args()
    sys.exit(asyncio.run(main(asked.names, asked.jobs, loud=asked.loud, trusting=asked.trusting)))
