"""From settings to the service and back to an exit code."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from taskrunner.client import Client
from taskrunner.commands.codes import MISUSED, Arguments
from taskrunner.commands.each import code_of
from taskrunner.commands.words import Misused, sentence
from taskrunner.domain.errors import TaskrunnerError
from taskrunner.settings import Settings

INTERRUPTED, UNHEARD = 130, 141  # 128 and the number of SIGINT, of SIGPIPE
Act = Callable[[Client, Arguments], Awaitable[int]]
Say = Callable[..., int]


def run(settings: Settings, arguments: Arguments, say: Say) -> int:
    """Do what ``arguments`` ask for; ``say`` writes a sentence for people and returns the code it is given."""
    try:
        code = asyncio.run(_call(settings, arguments))
        sys.stdout.flush()
    except Misused as error:
        return say(MISUSED, str(error))
    except BrokenPipeError:  # whoever read, such as head, has enough; Python would complain when it flushes what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except (TaskrunnerError, TimeoutError, OSError) as error:
        return say(code_of(error), sentence(error))
    except KeyboardInterrupt:
        return say(INTERRUPTED, "interrupted")
    return code


async def _call(settings: Settings, arguments: Arguments) -> int:
    token = settings.api_token.get_secret_value() if settings.api_token else None
    try:
        # A picture that comes late is worth nothing: the next one is on its way.
        client = Client(settings.api_url, token=token, retries=0 if arguments["command"] == "top" else 5)
    except ValueError as error:
        raise Misused(str(error)) from None
    async with client:
        return await _act_of(arguments["command"])(client, arguments)


def _act_of(command: str) -> Act:
    match command:
        case "task":
            from taskrunner.commands.tasks import act
        case "top":
            from taskrunner.commands.top import act
        case _:
            from taskrunner.commands.fleet import act
    return act
