"""Every line that is written while a handler runs says which attempt it is about."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog
from worker import log_tasks
from worker.bench import Bench, open_bench

from taskrunner.kit.log import configure
from taskrunner.worker.children import Setup

HANDLERS = (log_tasks.inline, log_tasks.suspends, log_tasks.thread, log_tasks.child, log_tasks.child_plain)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("info", "json", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def about(bench: Bench, id_: bytes) -> Callable[[dict[str, Any]], bool]:
    wanted = {"task_id": str(UUID(bytes=id_)), "attempt": 3, "session": bench.session.name}
    return lambda line: line.items() >= wanted.items()


async def test_lines_of_each_handler_are_about_its_own_attempt(stream: io.StringIO) -> None:
    """One after the other without suspending, and at once with what they have started."""
    async with open_bench(*HANDLERS) as bench:
        quick = bench.give("log.inline", "a", "b", attempt=3)
        slow = bench.give("log.suspends", "c", "d", attempt=3)
        await bench.outcomes([*quick, *slow])
        said = lines(stream.getvalue())
        for n, id_ in zip("abcd", [*quick, *slow], strict=True):
            own = [line for line in said if line.get("n") == n or line["event"].endswith(f"thread of {n}")]
            assert [line["event"] for line in own] == (["inline"] if n in "ab" else ["before", f"from a thread of {n}", "aside"])
            assert all(map(about(bench, id_), own)), own


async def test_a_line_says_its_own_words_first_and_threads_say_theirs(stream: io.StringIO) -> None:
    async with open_bench(*HANDLERS) as bench:
        (id_,) = bench.give("log.thread", "e")
        await bench.outcomes([id_])
        (line,) = lines(stream.getvalue())
        assert (line["task_id"], line["attempt"]) == (str(UUID(bytes=id_)), "its own word")


async def test_lines_between_handlers_are_about_none(stream: io.StringIO) -> None:
    async with open_bench(*HANDLERS) as bench:
        await bench.outcomes(bench.give("log.inline", "a"))
        structlog.get_logger().info("idle")
        assert not {"task_id", "attempt"} & lines(stream.getvalue())[-1].keys()


@pytest.mark.parametrize("task_type", ["log.child", "log.child_plain"])
async def test_children_log_as_their_worker_does(capfd: pytest.CaptureFixture[str], task_type: str) -> None:
    setup = Setup(("worker.log_tasks",), "info", "json")
    async with open_bench(*HANDLERS, setup=setup) as bench:
        (id_,) = bench.give(task_type, "f", attempt=3)
        await bench.outcomes([id_])
        (line,) = lines(capfd.readouterr().err)
        assert about(bench, id_)(line), line
        assert line["level"] in ("info", "warning")


async def test_a_handler_that_does_not_stop_is_named_in_full(stream: io.StringIO) -> None:
    async with open_bench(log_tasks.deaf, cancel_grace=0.05) as bench:
        (id_,) = bench.give("log.deaf", None, attempt=3)
        await bench.until(log_tasks.INSIDE.is_set)  # before that, it is simply not begun
        bench.executor.interrupt()
        await bench.outcomes([id_])
        (line,) = [line for line in lines(stream.getvalue()) if "still runs" in line["event"]]
        assert about(bench, id_)(line), line
        log_tasks.DEAF.set()
        await bench.until(lambda: not bench.executor.floor.lingering)
