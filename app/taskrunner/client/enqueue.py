"""A task in your own transaction: committed with your rows, or not at all.

Knows no driver: a connection of psycopg 3 has the ``execute`` that is needed, and brings its own database.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol, Unpack
from uuid import UUID

from taskrunner.client.transport import dump
from taskrunner.client.values import TaskFields
from taskrunner.kit.trace import current

JSONB = frozenset({"payload", "metadata", "backoff"})


class _Cursor(Protocol):
    def fetchone(self) -> Any: ...


class _AsyncCursor(Protocol):
    async def fetchone(self) -> Any: ...


class Connection(Protocol):
    """What is used of ``psycopg.Connection``."""

    def execute(self, query: Any, params: Any = None, /) -> _Cursor:
        """Run a statement."""


class AsyncConnection(Protocol):
    """What is used of ``psycopg.AsyncConnection``."""

    async def execute(self, query: Any, params: Any = None, /) -> _AsyncCursor:
        """Run a statement."""


async def enqueue(connection: AsyncConnection, task_type: str, payload: Any = None, **fields: Unpack[TaskFields]) -> str:
    """Create a task inside the transaction that ``connection`` is in; its id. It may run as soon as you commit.

    ``connection`` is a ``psycopg.AsyncConnection`` to the service's database, with any row factory. Fields are those of
    :meth:`Client.create`, and so is Unsendable; the database refuses what the API would refuse, as an error of psycopg.
    """
    return _id(await (await connection.execute(*_call(task_type, payload, fields))).fetchone())


def enqueue_sync(connection: Connection, task_type: str, payload: Any = None, **fields: Unpack[TaskFields]) -> str:
    """:func:`enqueue` for a ``psycopg.Connection``."""
    return _id(connection.execute(*_call(task_type, payload, fields)).fetchone())


def _call(task_type: str, payload: Any, fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    unknown = fields.keys() - TaskFields.__annotations__.keys()
    if unknown:
        raise TypeError(f"{min(unknown)!r} is not a field of a task; there are {', '.join(TaskFields.__annotations__)}")
    given = {"task_type": task_type, "payload": {} if payload is None else payload, "traceparent": current(), **fields}
    values = {name: _value(name, value) for name, value in given.items() if value is not None}
    arguments = ", ".join(f"{name} => %({name})s{'::jsonb' if name in JSONB else ''}" for name in values)
    return f"select taskrunner_enqueue({arguments}) as id", values


def _value(name: str, value: Any) -> Any:
    """As PostgreSQL takes it: JSON as text, the delay as an interval, other durations as seconds."""
    text = dump(value)  # also of what is passed as it is: the database would take a timeout of NaN
    if name in JSONB:
        return text.decode()
    if name == "delay":
        return value if isinstance(value, timedelta) else timedelta(seconds=value)
    return value.total_seconds() if isinstance(value, timedelta) else [*value] if name == "tags" else value


def _id(row: Any) -> str:
    found = row["id"] if isinstance(row, Mapping) else row[0] if isinstance(row, tuple | list) else row.id
    return str(UUID(str(found)))
