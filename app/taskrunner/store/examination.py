"""What ``taskrunner doctor`` may ask of a database that may be ill: on a connection of its own, read-only, each question bounded."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from taskrunner.domain.errors import ConfigurationError, Unavailable
from taskrunner.store.goose import parse
from taskrunner.store.migrate import schema_files
from taskrunner.store.pool import translated
from taskrunner.store.queries import sql

# Of each transaction, not of the session: behind a pooler the session is somebody else's next.
BOUNDS = "set transaction read only; set local statement_timeout = '15s'; set local lock_timeout = '1s'; set local timezone = 'UTC'"
INDEX = re.compile(r"(?im)^\s*(create|drop)\s+(?:unique\s+)?index\s+(?:concurrently\s+)?(?:if\s+(?:not\s+)?exists\s+)?(\w+)")


class Examination:
    """Statements by name."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def ask(self, name: str, **parameters: Any) -> list[Any]:
        """The rows of a statement, whose columns are attributes.

        Raises Unavailable where there is no answer in time, ConfigurationError where we may not look.
        """
        try:
            with translated():
                async with self._connection.transaction(), self._connection.cursor(row_factory=namedtuple_row) as cursor:
                    await cursor.execute(BOUNDS)
                    return await (await cursor.execute(sql(name), parameters)).fetchall()
        except psycopg.Error as error:
            raise ConfigurationError(f"the database refuses to say: {error.diag.message_primary or error}") from error


@asynccontextmanager
async def examination(dsn: str) -> AsyncIterator[Examination]:
    """A connection to look through. Raises Unavailable where there is none."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, prepare_threshold=None, connect_timeout=5, application_name="taskrunner doctor"
        )
    except psycopg.Error as error:
        raise Unavailable(" ".join(str(error).split())) from error
    async with connection:
        yield Examination(connection)


def indexes_of_schema() -> set[str]:
    """The names of the indexes that the files of this version make by CREATE INDEX."""
    found: set[str] = set()
    files = sorted((file for file in schema_files().iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    for number, file in enumerate(files, 1):
        for statement in parse(number, file.name, file.read_text(encoding="utf-8")).up:
            for verb, name in INDEX.findall(statement.text):
                (found.add if verb.lower() == "create" else found.discard)(name)
    return found
