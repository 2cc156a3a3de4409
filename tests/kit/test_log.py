"""kit.log: one way for every log line."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from taskrunner.kit import log


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream to log to; the logging of the process is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line_from_both_ways(stream: io.StringIO) -> None:
    log.configure("info", "json", stream=stream)
    structlog.get_logger("ours").info("claimed", tasks=3)
    logging.getLogger("aiohttp.server").warning("bad request from %s", "::1")
    ours, theirs = lines(stream)
    assert (ours["event"], ours["tasks"], ours["level"], ours["logger"]) == ("claimed", 3, "info", "ours")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("bad request from ::1", "warning", "aiohttp.server")
    assert str(ours["timestamp"]).endswith("Z")


def test_a_stream_that_is_no_terminal_gets_json(stream: io.StringIO) -> None:
    log.configure("info", stream=stream)
    structlog.get_logger().info("claimed")
    assert lines(stream)[0]["event"] == "claimed"


def test_text_is_readable(stream: io.StringIO) -> None:
    log.configure("info", "text", stream=stream)
    structlog.get_logger().info("claimed", tasks=3)
    assert "claimed" in stream.getvalue()
    assert "tasks=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_shows_no_values(stream: io.StringIO, form: str) -> None:
    log.configure("info", "json" if form == "json" else "text", stream=stream)
    secret = "card " + "4242"
    try:
        raise ValueError(len(secret))
    except ValueError:
        structlog.get_logger().exception("a handler failed")
        logging.getLogger("asyncio").exception("a callback failed")
    assert stream.getvalue().count("ValueError: 9") == 2
    assert "card 4242" not in stream.getvalue()


def test_lines_below_the_level_are_dropped(stream: io.StringIO) -> None:
    log.configure("warning", "json", stream=stream)
    structlog.get_logger().info("claimed")
    logging.getLogger("asyncio").info("using selector")
    structlog.get_logger().error("lost")
    assert [line["event"] for line in lines(stream)] == ["lost"]
