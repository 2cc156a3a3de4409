"""Handlers that return, raise and tell what nobody should read in a log."""

from typing import Any

from taskrunner import Context, Fail, task


@task("secret", max_attempts=1)
async def secret(ctx: Context, payload: dict[str, Any]) -> Any:
    """Ends as the payload says."""
    ctx.progress(0.5, payload["marker"])
    match payload["end"]:
        case "return":
            return payload
        case "fail":
            raise Fail(payload["marker"])
        case "nul":
            return {"marker": payload["marker"], "bad": "\0"}
        case "huge":
            return payload["marker"] * 100_000
    raise ValueError(payload["marker"])


@task("secret-thread", max_attempts=1)
def secret_thread(_: Context, payload: dict[str, Any]) -> None:
    """Raises in a thread."""
    raise KeyError(payload["marker"])


@task("secret-child", max_attempts=1, isolation="process")
def secret_child(_: Context, payload: dict[str, Any]) -> None:
    """Raises in a child."""
    raise KeyError(payload["marker"])
