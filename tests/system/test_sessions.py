"""The curl sessions of docs/api.md, against the whole program."""

from collections.abc import Callable
from pathlib import Path

import pytest
from faults.processes import Process
from faults.waiting import until
from system.calls import call
from system.sessions import Reader, Step, sessions, steps

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "api.md"


async def test_the_sessions_of_the_api_run_as_they_stand(launch: Callable[..., Process], tmp_path: Path) -> None:
    top = str(DOCUMENT.parent.parent)
    ports = ("--http-port=0", "--scheduler-port=0", "--worker-port=0")
    one = launch(f"--data-dir={tmp_path / 'data'}", *ports, "--handlers=examples.hello", PYTHONPATH=top)
    api = (await one.said("ready"))["api"]
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    found = sessions(DOCUMENT)
    assert len(found) > 8
    reader = Reader(api.removeprefix("http://"))
    for session in found:
        for step in session:
            reader.run(step)


def test_a_command_goes_on_while_a_quotation_is_open() -> None:
    assert [*steps("$ curl a -d '{\n  1}'\n{x}\n$ curl b\n")] == [Step("curl a -d '{\n  1}'", "{x}"), Step("curl b", "")]


@pytest.mark.parametrize(
    ("shown", "came", "fits"),
    [
        ('{"a": 1, … "b": 2}', '{"a":1,"c":3,"b":2}', True),
        ('{"a": 1}', '{"a":2}', False),
        ('{"t": "2026-11-24T08:25:12.000000Z"}', '{"t":"2027-01-01T00:00:00.123456Z"}', True),
        (
            '["01a20ca8-aabc-7a76-8a58-f035ed8d43d5", "01a20ca8-aabc-7a76-8a58-f035ed8d43d5"]',
            '["11a20ca8-aabc-7a76-8a58-f035ed8d43d5","21a20ca8-aabc-7a76-8a58-f035ed8d43d5"]',
            False,
        ),
    ],
)
def test_an_answer_that_differs_is_found(shown: str, came: str, *, fits: bool) -> None:
    step = Step(f"printf '%s' '{came}'", shown)
    if fits:
        Reader("").run(step)
    else:
        with pytest.raises(AssertionError, match="the document shows"):
            Reader("").run(step)
