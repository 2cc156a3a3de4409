"""The tests of docs/handlers.md, pasted into a project of somebody's."""

import re
import subprocess
import sys
from pathlib import Path

from faults.processes import plain_environment

TOP = Path(__file__).parents[2]
TEXT = (TOP / "docs" / "handlers.md").read_text().partition("## Tests of your own")[2]
SHOP = """
from taskrunner import Context, Fail, task

@task("send-invoice")
async def send_invoice(ctx: Context, invoice: dict) -> dict:
    if not invoice["lines"]:
        raise Fail("the invoice has no lines")
    return {"sent": True}
"""


def test_the_tests_of_the_document_run_as_they_stand(tmp_path: Path) -> None:
    (tests,) = re.findall(r"(?ms)^```python\n(.*?)^```", TEXT)
    (setting,) = re.findall(r"`(asyncio_mode = \w+)` in `pytest.ini`", TEXT)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "tasks.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\n{setting}\n")
    environment = plain_environment() | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
