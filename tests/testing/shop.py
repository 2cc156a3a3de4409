"""A user's handlers."""

from pydantic import BaseModel

from taskrunner import Context, Fail, Retry, Snooze, task


class Order(BaseModel):
    number: int


@task("order", timeout=7, max_attempts=3)
async def order(ctx: Context, payload: Order) -> dict[str, int]:
    if payload.number == 0:
        raise Fail("there is no order 0")
    if ctx.attempt == 1 and payload.number == 1:
        raise Retry("later", after=0.1)
    await ctx.progress(0.5, "half")
    return {"number": payload.number, "attempt": ctx.attempt}


@task("count")
def count(ctx: Context, words: list[str]) -> int | None:
    return None if ctx.cancelled else len(words)


@task("snooze")
def snooze(_: Context, payload: float) -> None:
    raise Snooze(payload)


@task("break")
async def broken(_: Context, __: object) -> None:
    raise ZeroDivisionError
