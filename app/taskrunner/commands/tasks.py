"""The actions of ``taskrunner task``. Exit codes: 0 done, 1 it failed, 2 it was asked for wrongly, 3 there is no such task."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from taskrunner.client import ApiError, Client, NotFound, Task
from taskrunner.commands.importing import import_file
from taskrunner.commands.words import Misused, line, sentence, show
from taskrunner.domain.errors import TaskrunnerError
from taskrunner.settings import Settings

DONE, FAILED, MISUSED, MISSING = 0, 1, 2, 3
Arguments = Mapping[str, Any]


def run(settings: Settings, arguments: Arguments, say: Callable[..., int]) -> int:
    """Do what ``arguments`` ask for; ``say`` writes a sentence for people and returns the code it is given."""
    try:
        return asyncio.run(_act(settings, arguments))
    except Misused as error:
        return say(MISUSED, str(error))
    except NotFound as error:
        return say(MISSING, sentence(error))
    except (TaskrunnerError, TimeoutError, OSError) as error:
        return say(MISUSED if isinstance(error, ApiError) and error.status in (400, 413, 422) else FAILED, sentence(error))
    except KeyboardInterrupt:
        return say(130, "interrupted")


async def _act(settings: Settings, arguments: Arguments) -> int:
    token = settings.api_token.get_secret_value() if settings.api_token else None
    try:
        client = Client(settings.api_url, token=token)
    except ValueError as error:
        raise Misused(str(error)) from None
    async with client:
        match arguments["action"]:
            case "create":
                return await _create(client, arguments)
            case "list":
                return await _list(client, arguments)
            case "import":
                return await import_file(client, arguments["file"], as_json=arguments["json"])
            case "wait":
                return await _wait(client, arguments)
            case action:
                return await _each(
                    arguments, {"get": client.get, "cancel": client.cancel, "retry": client.retry, "run": client.run_now}[action]
                )


async def _create(client: Client, arguments: Arguments) -> int:
    fields = _given(arguments)
    if "metadata" in fields:
        fields["metadata"] = _json(fields["metadata"], "--metadata")
    text = sys.stdin.read() if arguments["payload"] == "-" else arguments["payload"]
    task = await client.create(arguments["task_type"], _json(text, "the payload"), tags=arguments["tag"], **fields)
    if arguments["wait"] is None:
        show(task, as_json=arguments["json"])
        return DONE
    task = await client.wait(task.id, arguments["wait"])
    show(task, as_json=arguments["json"])
    return DONE if task.succeeded else FAILED


async def _list(client: Client, arguments: Arguments) -> int:
    filters = _given(arguments)
    if "status" in filters:
        filters["status"] = filters["status"].split(",")
    limit = arguments["limit"]
    n = 0
    async for task in client.list(page=min(limit or 500, 500), tag=arguments["tag"], **filters):
        show(task, as_json=True) if arguments["json"] else line(task)
        n += 1
        if n == limit:
            break
    return DONE


async def _wait(client: Client, arguments: Arguments) -> int:
    async def wait(task: str) -> Task:
        return await client.wait(task, arguments["patience"])

    good = True
    for task in arguments["ids"]:
        found = await wait(task)
        show(found, as_json=arguments["json"])
        good &= found.succeeded
    return DONE if good else FAILED


async def _each(arguments: Arguments, act: Callable[[str], Awaitable[Task]]) -> int:
    for task in arguments["ids"]:
        show(await act(task), as_json=arguments["json"])
    return DONE


def _given(arguments: Arguments) -> dict[str, Any]:
    return {name.removeprefix("task."): value for name, value in arguments.items() if name.startswith("task.")}


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Misused(f'{what} must be JSON, such as \'{{"to": "user@example.com"}}\', not {text[:40]!r}') from None
