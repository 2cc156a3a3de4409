"""Upkeep: a step that the database refuses, perhaps for ever, keeps no other from being done."""

from collections.abc import Awaitable, Callable
from typing import Any

from structlog.testing import capture_logs

from taskrunner.domain.errors import Unavailable
from taskrunner.scheduler.upkeep import Upkeep
from taskrunner.settings import Settings


class Busy:
    """Tables of which nothing is to be had."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Awaitable[None]]:
        async def step(**_: Any) -> None:
            self.asked.append(name)
            raise Unavailable(name)

        return step


async def test_a_step_that_fails_is_said_and_keeps_no_other_from_being_done() -> None:
    tables = Busy()
    upkeep = Upkeep(tables, tables, Settings(_env_file=None))  # type: ignore[arg-type]  # as far as it goes
    with capture_logs() as said:
        await upkeep.each_minute()
        await upkeep.each_hour()
    assert tables.asked == ["sum_tally", "forget_sessions", "forget_keys", "make_leaves", "fold", "drop_leaves", "forget_counts"]
    assert [one["error"] for one in said] == tables.asked
