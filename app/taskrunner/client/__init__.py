"""The HTTP API for Python programs and for our own command line, and ``enqueue`` in the user's own transaction. Never imports the store."""

from taskrunner.client.client import Client
from taskrunner.client.enqueue import enqueue, enqueue_sync
from taskrunner.client.errors import ApiError, NotFound, Refused, Unreachable, Unsendable
from taskrunner.client.sync import SyncClient
from taskrunner.client.values import Attempt, Bulk, Count, Event, Failures, Filters, Lot, Made, Page, Task, TaskFields, Worker

__all__ = [
    "ApiError",
    "Attempt",
    "Bulk",
    "Client",
    "Count",
    "Event",
    "Failures",
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
    "Unsendable",
    "Worker",
    "enqueue",
    "enqueue_sync",
]
