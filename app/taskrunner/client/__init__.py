"""The HTTP API for Python programs and for our own command line, and ``enqueue`` in the user's own transaction. Never imports the store."""

from taskrunner.client.client import Client
from taskrunner.client.enqueue import enqueue, enqueue_sync
from taskrunner.client.errors import ApiError, NotFound, Refused, Unreachable
from taskrunner.client.sync import SyncClient
from taskrunner.client.values import Attempt, Event, Filters, Lot, Made, Page, Task, TaskFields, Worker

__all__ = [
    "ApiError",
    "Attempt",
    "Client",
    "Event",
    "Filters",
    "Lot",
    "Made",
    "NotFound",
    "Page",
    "Refused",
    "SyncClient",
    "Task",
    "TaskFields",
    "Unreachable",
    "Worker",
    "enqueue",
    "enqueue_sync",
]
