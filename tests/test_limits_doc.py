"""The bounds that docs/security.md promises are those of the code."""

import re
from pathlib import Path

import pytest

from taskrunner.api import connections, creator, feed, imports, intake, reading, requests
from taskrunner.api.bodies import BATCH_BYTES, TASK_BYTES
from taskrunner.kit import sockets
from taskrunner.scheduler import service, settler
from taskrunner.scheduler.delivery import LETTER
from taskrunner.store import imports as store_imports
from taskrunner.wire import limits, server

TEXT = (Path(__file__).parent.parent / "docs" / "security.md").read_text()
LIMITS = TEXT[TEXT.index("## Limits") : TEXT.index("## Roles of PostgreSQL")]
MIB = 1 << 20


def row(name: str) -> str:
    """What the table says of it."""
    (found,) = re.findall(rf"(?m)^\| {re.escape(name)} \| (.*)$", LIMITS)
    return str(found)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("a request's head", [f"{connections.HEAD:.0f} s"]),
        (
            "a request's body",
            [f"{intake.LEAST >> 10} KiB every {intake.PATIENCE:.0f} s", f"{TASK_BYTES // MIB} MiB, {BATCH_BYTES // MIB} MiB"],
        ),
        ("bodies of requests that are not answered yet", [f"{intake.MOST // MIB} MiB"]),
        ("creates that wait for the database", [f"{creator.WAITING:,}", f"{creator.PATIENCE:.0f} s"]),
        ("reads that wait", [f"{reading.WAITING:,}"]),
        ("a statement's creates", [f"{creator.BATCH} tasks", f"about {creator.BYTES // MIB} MiB"]),
        ("streams of events", [f"{feed.MOST}, {feed.BUFFER // MIB} MiB"]),
        ("imports", [f"{store_imports.MOST} at once, {imports.PATIENCE:.0f} s", f"{requests.LINE_BYTES // MIB} MiB a line"]),
        ("between two requests", [f"{connections.IDLE:.0f} s"]),
        ("a TLS handshake, a Hello, a first beat", [f"{server.HANDSHAKE:.0f} s", f"{service.FIRST_MESSAGE:.0f} s"]),
        ("a connection without a call", [f"{limits.PERIOD:.0f} to {2 * limits.PERIOD:.0f} s"]),
        ("a message, either way", [f"{limits.MOST_BYTES // MIB} MiB"]),
        ("payloads in one Tasks message", [f"{LETTER >> 10} KiB"]),
        ("streams of a connection", [f"{limits.MOST_STREAMS} at once, {limits.MOST_BEGUN} begun in {limits.PERIOD:.0f} s"]),
        ("outcomes, starts and progress that wait to be written", [f"{settler.MOST_HELD // MIB} MiB"]),
        ("answers to pings that a peer leaves unread", [f"{limits.MOST_UNSENT // MIB} MiB"]),
    ],
)
def test_the_tables_say_what_is(name: str, bounds: list[str]) -> None:
    assert [bound for bound in bounds if bound not in row(name)] == []


def test_half_a_minute_is_half_a_minute() -> None:
    assert sockets.STUCK == 30_000
    assert sockets.SILENT + sockets.AGAIN * sockets.ASKED == 30
