"""What a user's module imports: ``task``, ``Context`` and the words that say what is next."""

from taskrunner.sdk.context import Context
from taskrunner.sdk.handler import Handler, Isolation, handlers_in, task
from taskrunner.sdk.verdict import Fail, Retry, Snooze, Verdict

__all__ = ["Context", "Fail", "Handler", "Isolation", "Retry", "Snooze", "Verdict", "handlers_in", "task"]
