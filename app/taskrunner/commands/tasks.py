"""The actions of ``taskrunner task``."""

import sys
from collections.abc import Awaitable
from typing import Any

import orjson

from taskrunner.client import Client, Task
from taskrunner.commands.bulk import change_all
from taskrunner.commands.codes import DONE, FAILED, Arguments
from taskrunner.commands.each import each
from taskrunner.commands.exporting import export
from taskrunner.commands.importing import import_file
from taskrunner.commands.watching import watch
from taskrunner.commands.words import Misused, line, show, show_json, table, text_of


async def act(client: Client, arguments: Arguments) -> int:
    """Do one of them; the exit code."""
    as_json = arguments["json"]
    match arguments["action"]:
        case "create":
            code = await _create(client, arguments)
        case "list":
            code = await _list(client, arguments)
        case "import":
            code = await import_file(client, arguments["file"], as_json=as_json)
        case "export":
            code = await export(client, arguments["file"], filters_of(arguments), as_json=as_json)
        case "watch":
            code = await watch(client, arguments, filters_of(arguments))
        case "errors":
            code = await _errors(client, arguments)
        case "wait":
            code = await _wait(client, arguments)
        case "cancel" | "retry" as verb if not arguments["ids"]:
            code = await change_all(client, verb, filters_of(arguments), yes=arguments["yes"], as_json=as_json)
        case action:
            if any(filters_of(arguments).values()):
                raise Misused("give IDs, or filters; not both")
            acts = {"get": client.get, "cancel": client.cancel, "retry": client.retry, "run": client.run_now}
            code = await each(arguments["ids"], lambda task: _show(acts[action](task), as_json=as_json))
    return code


async def _create(client: Client, arguments: Arguments) -> int:
    fields = _given(arguments)
    if "metadata" in fields:
        fields["metadata"] = _json(fields["metadata"], "--metadata")
    text = arguments["payload"]
    if text == "-":  # JSON is UTF-8, whatever the terminal speaks
        text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    task = await client.create(arguments["task_type"], _json(text, "the payload"), tags=arguments["tag"], **fields)
    if arguments["wait"] is None:
        show(task, as_json=arguments["json"])
        return DONE
    task = await client.wait(task.id, arguments["wait"])
    show(task, as_json=arguments["json"])
    return DONE if task.succeeded else FAILED


async def _list(client: Client, arguments: Arguments) -> int:
    limit = arguments["limit"]
    n = 0
    async for task in client.list(page=min(limit or 500, 500), **filters_of(arguments)):
        show_json(task) if arguments["json"] else line(task)
        n += 1
        if n == limit:
            break
    return DONE


async def _errors(client: Client, arguments: Arguments) -> int:
    kinds = await client.errors(window=arguments["window"], **_given(arguments))
    if arguments["json"]:
        for kind in kinds:
            show_json(kind)
        return DONE
    rows = [[f"{kind.count:,}", text_of(kind.last_at)[:19] + "Z", kind.task_type, kind.example_id, kind.message] for kind in kinds]
    sys.stdout.write("\n".join(table((">COUNT", "LAST", "TYPE", "EXAMPLE", "ERROR"), rows) if rows else ["there are none"]) + "\n")
    return DONE


async def _wait(client: Client, arguments: Arguments) -> int:
    async def act(task: str) -> int:
        found = await client.wait(task, arguments["patience"])
        show(found, as_json=arguments["json"])
        return DONE if found.succeeded else FAILED

    return await each(arguments["ids"], act)


async def _show(found: Awaitable[Task], *, as_json: bool) -> int:
    show(await found, as_json=as_json)
    return DONE


def filters_of(arguments: Arguments) -> dict[str, Any]:
    """Which tasks are meant, as the client takes it."""
    filters = _given(arguments)
    if "status" in filters:
        filters["status"] = filters["status"].split(",")
    return filters | {"tag": arguments.get("tag", [])}


def _given(arguments: Arguments) -> dict[str, Any]:
    return {name.removeprefix("task."): value for name, value in arguments.items() if name.startswith("task.")}


def _json(text: str, what: str) -> orjson.Fragment:
    """The text as it stands, once it is one document: what reading would change, such as a key that is there twice, the API judges."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Misused(f'{what} must be JSON, such as \'{{"to": "user@example.com"}}\', not {text[:40]!r}: {error}') from None
    return orjson.Fragment(text)
