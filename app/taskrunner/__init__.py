"""taskrunner: a task service on PostgreSQL.

What a handler module needs, and nothing else::

    from taskrunner import Context, Fail, Retry, Snooze, task
"""

from taskrunner.sdk import Context, Fail, Retry, Snooze, task

__all__ = ["Context", "Fail", "Retry", "Snooze", "task"]
