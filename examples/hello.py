from pydantic import BaseModel

from taskrunner import Context, Retry, task


class Greeting(BaseModel):
    """What the payload must look like. One that does not fit fails its task for good, with a clear error."""

    name: str


@task("hello", timeout=10, max_attempts=8)
async def hello(ctx: Context, greeting: Greeting) -> dict[str, str]:
    """Greet, at the second try if need be. What is returned is the task's result."""
    if greeting.name == "sleeper" and ctx.attempt == 1:
        raise Retry("still asleep", after=0.5)
    return {"text": f"Hello, {greeting.name}!", "task": ctx.task_id}


@task("count-words")
def count_words(_: Context, text: str) -> int:
    """Plain functions run in threads."""
    return len(text.split())
