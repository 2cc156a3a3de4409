"""``taskrunner token``: tokens of the HTTP API. Straight on the database, so that the first one can be made."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any

from taskrunner.commands.codes import DONE, FAILED, MISSING, MISUSED, Arguments
from taskrunner.commands.words import Misused, sentence, show_json, table, text_of
from taskrunner.domain.access import Scope, scopes_of
from taskrunner.domain.errors import TaskrunnerError
from taskrunner.process import database
from taskrunner.settings import Settings
from taskrunner.store.pool import open_pool
from taskrunner.store.tokens import Tokens

LONGEST = 100  # characters of a name
CENTURY = 36_525 * 86_400  # seconds


def run(settings: Settings, arguments: Arguments, say: Callable[..., int]) -> int:
    """Do what ``arguments`` ask for; ``say`` writes a sentence for people and returns the code it is given."""
    try:
        return asyncio.run(_act(settings, arguments, say))
    except Misused as error:
        return say(MISUSED, str(error))
    except TaskrunnerError as error:
        return say(FAILED, sentence(error))


async def _act(settings: Settings, arguments: Arguments, say: Callable[..., int]) -> int:
    scopes = _asked(arguments) if arguments["action"] == "create" else []
    async with database(settings) as found, open_pool(found.dsn) as pool:
        tokens, as_json = Tokens(pool), arguments["json"]
        match arguments["action"]:
            case "create":
                made = await tokens.create(arguments["name"], scopes, seconds=arguments["expires_in"])
                if as_json:
                    show_json(
                        {
                            "id": made.id,
                            "name": arguments["name"],
                            "scopes": scopes,
                            "expires_at": _iso(made.expires_at),
                            "token": made.secret,
                        }
                    )
                else:
                    sys.stdout.write(f"{made.secret}\n")
            case "list":
                _list([asdict(token) for token in await tokens.list()], as_json=as_json)
            case _:
                return max([await _revoke(tokens, name, say, as_json=as_json) for name in arguments["names"]])
    return DONE


async def _revoke(tokens: Tokens, name: str, say: Callable[..., int], *, as_json: bool) -> int:
    revoked = await tokens.revoke(name)
    if revoked is None:
        return say(MISSING, f"no live token has the name or id {name!r}")
    if as_json:
        show_json({"id": revoked})
    else:
        sys.stdout.write(f"{revoked} is revoked\n")
    return DONE


def _asked(arguments: Arguments) -> list[Scope]:
    name, seconds = arguments["name"], arguments["expires_in"]
    if not 1 <= len(name) <= LONGEST or not name.isprintable():
        raise Misused(f"NAME must have 1 to {LONGEST} printable characters")
    if seconds is not None and not 0 < seconds <= CENTURY:
        raise Misused("--expires-in must be more than 0 seconds, and at most a century")
    try:
        words = list(dict.fromkeys(word.strip() for word in arguments["scopes"].split(",")))
        scopes_of(words)
    except ValueError as error:
        raise Misused(f"--scopes {error}") from None
    return [Scope(word) for word in words]


def _list(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    shown = ("id", "name", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at", "live")
    if as_json:
        for row in rows:
            show_json({name: _iso(row[name]) for name in shown})
        return
    lines = [[row["id"], row["name"], ",".join(row["scopes"]), *(_moment(row[name]) for name in shown[3:7])] for row in rows]
    for line in table(("ID", "NAME", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "LAST USED"), lines):
        sys.stdout.write(f"{line}\n")


def _moment(value: Any) -> str:
    return "–" if value is None else text_of(value.replace(microsecond=0)).replace(".000", "")


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
