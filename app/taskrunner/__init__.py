"""taskrunner: a task service on PostgreSQL.

A handler module says ``from taskrunner import Context, Fail, Retry, Snooze, task``; a program that creates tasks says
``from taskrunner import Client`` (or ``SyncClient``, or ``enqueue``).
"""

from typing import TYPE_CHECKING, Any

from taskrunner.sdk import Context, Fail, Retry, Snooze, task

if TYPE_CHECKING:  # no circle is hidden here: type checkers do not follow __getattr__
    from taskrunner.client import Client, SyncClient, enqueue, enqueue_sync

__all__ = ["Client", "Context", "Fail", "Retry", "Snooze", "SyncClient", "enqueue", "enqueue_sync", "task"]


def __getattr__(name: str) -> Any:
    """The client is imported when somebody asks for it: a worker whose handlers do not call the service need not load aiohttp."""
    if name in __all__:
        from taskrunner import client

        return getattr(client, name)
    raise AttributeError(f"module 'taskrunner' has no attribute {name!r}")
