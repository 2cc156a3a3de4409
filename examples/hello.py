"""Two handlers. Start taskrunner with them: TASKRUNNER_HANDLERS=examples.hello make run."""

import asyncio

from pydantic import BaseModel

from taskrunner import Context, Fail, Retry, task


class Greeting(BaseModel):
    name: str
    patience: float = 0.0


@task("hello", timeout=10, max_attempts=8)
async def hello(ctx: Context, payload: Greeting) -> dict[str, str]:
    if payload.name == "nobody":
        raise Fail("there is nobody to greet")  # FAILED now, whatever attempts are left
    if ctx.attempt == 1 and payload.name == "sleeper":
        raise Retry("still asleep", after=0.5)  # the second attempt is 0.5 s later
    await asyncio.sleep(payload.patience)
    return {"text": f"Hello, {payload.name}!", "task": ctx.task_id}


@task("count-words")
def count_words(_: Context, payload: str) -> int:  # a plain function runs in a thread
    return len(payload.split())
