"""Handlers by themselves."""

from datetime import UTC, datetime

import pytest
from testing import shop

from taskrunner import Context, task
from taskrunner.testing import Ran, run_inline


async def test_a_result() -> None:
    ran = await run_inline(shop.order, {"number": 7})
    assert ran == Ran("COMPLETED", {"number": 7, "attempt": 1}, None, None, None, ((0.5, "half"),))


async def test_a_payload_may_be_a_model_and_is_checked() -> None:
    assert (await run_inline(shop.order, shop.Order(number=7), attempt=2)).result == {"number": 7, "attempt": 2}
    ran = await run_inline(shop.order, {"number": "many"})
    assert (ran.outcome, ran.error) == (
        "FAILED",
        "the payload does not fit: number: Input should be a valid integer, unable to parse string as an integer",
    )


async def test_verdicts_and_errors() -> None:
    again = await run_inline(shop.order, {"number": 1})
    assert (again.outcome, again.error, again.delay) == ("RETRY", "later", 0.1)
    given_up = await run_inline(shop.order, {"number": 0})
    assert (given_up.outcome, given_up.error) == ("FAILED", "there is no order 0")
    assert ((await run_inline(shop.snooze, 60)).outcome, (await run_inline(shop.snooze, 60)).delay) == ("SNOOZED", 60.0)
    broken = await run_inline(shop.broken)
    assert (broken.outcome, broken.error, broken.delay) == ("RETRY", "ZeroDivisionError", None)
    assert "shop.py" in (broken.traceback or "")


async def test_plain_functions_and_what_they_are_told() -> None:
    assert (await run_inline(shop.count, ["a", "b"])).result == 2
    assert (await run_inline(shop.count, ["a"], cancelled=True)).result is None


async def test_the_context_is_the_handlers() -> None:
    seen: list[Context] = []

    @task("see", timeout=7, max_attempts=3)
    async def see(ctx: Context, _: dict[str, int]) -> None:
        seen.append(ctx)

    due = datetime(2030, 1, 1, tzinfo=UTC)
    await run_inline(see, task_id="01890a5d-ac96-774b-bcce-b302099a8057", queue="q", run_at=due)
    (ctx,) = seen
    assert (ctx.task_type, ctx.queue, ctx.attempt, ctx.max_attempts, ctx.timeout) == ("see", "q", 1, 3, 7)
    assert (ctx.task_id, ctx.run_at, ctx.cancelled) == ("01890a5d-ac96-774b-bcce-b302099a8057", due, False)


async def test_what_is_no_handler_is_refused() -> None:
    with pytest.raises(TypeError, match="len is no handler: put @task above it"):
        await run_inline(len)
