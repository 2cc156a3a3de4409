"""What is done to several ids or names, and the code for what goes wrong."""

import sys
from collections.abc import Awaitable, Callable, Sequence

from taskrunner.client import ApiError, NotFound, Unsendable
from taskrunner.commands.codes import DONE, FAILED, MISSING, MISUSED
from taskrunner.commands.words import sentence

WRONG = (400, 413, 422)
OF_ONE = (404, 409, *WRONG)  # what is wrong with one name or id, and not with the call, such as its token


async def each(names: Sequence[str], act: Callable[[str], Awaitable[int]]) -> int:
    """Do it to each of them, whatever the service says of the others: a line for each that fails, and the worst code of all."""
    worst = DONE
    for name in names:
        try:
            code = await act(name)
        except (ApiError, Unsendable) as error:
            if isinstance(error, ApiError) and error.status not in OF_ONE:
                raise
            sys.stderr.write(f"taskrunner: {name!r}: {sentence(error)}\n")
            code = code_of(error)
        worst = max(worst, code)
    return worst


def code_of(error: BaseException) -> int:
    """What a command returns for it."""
    if isinstance(error, NotFound):
        return MISSING
    return MISUSED if isinstance(error, Unsendable) or (isinstance(error, ApiError) and error.status in WRONG) else FAILED
