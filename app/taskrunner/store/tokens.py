"""Tokens of the HTTP API, of which the database keeps only a hash."""

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from psycopg import errors
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from taskrunner.domain.access import Scope
from taskrunner.domain.errors import Conflict
from taskrunner.store.pool import Connection, translated
from taskrunner.store.queries import sql

PREFIX = "trk"  # for scanners that look for secrets in code


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, without its secret. ``live``: neither revoked nor expired."""

    id: str
    name: str
    hash: bytes
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    live: bool


class NewToken(NamedTuple):
    """A token that was made just now: the ``secret`` is the whole of it, and is not kept."""

    id: str
    secret: str
    expires_at: datetime | None


def digest(secret: str) -> bytes:
    """What is kept of a secret. Any text will do, also what is no UTF-8."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def id_of(secret: str) -> str:
    """The id in a token, or whatever stands in its place."""
    return secret.split("_", 2)[1] if secret.startswith(f"{PREFIX}_") else ""


class Tokens:
    """The table of tokens. Raises Unavailable while the database is away."""

    def __init__(self, pool: AsyncConnectionPool[Connection]) -> None:
        self._pool = pool

    async def list(self) -> list[Token]:
        """All tokens, those that are live first."""
        with translated():
            async with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Token)) as cursor:
                return await (await cursor.execute(sql("list_tokens"))).fetchall()

    async def create(self, name: str, scopes: Iterable[Scope], *, seconds: float | None) -> NewToken:
        """A new token, good for ``seconds`` or for ever.

        Raises Conflict when a live one has this name.
        """
        id_ = secrets.token_hex(6)
        secret = f"{PREFIX}_{id_}_{secrets.token_urlsafe(32)}"
        words = [scope.value for scope in scopes]
        row = {"id": id_, "name": name, "hash": digest(secret), "scopes": words, "seconds": seconds}
        with translated(writes=True):
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    await connection.execute(sql("expire_token"), {"name": name})
                    made = await (await connection.execute(sql("create_token"), row)).fetchone()
            except errors.UniqueViolation:
                raise Conflict(f"there is a token {name!r} already: revoke it first, or take another name") from None
        assert made is not None  # an insert returns its row
        return NewToken(id_, secret, made[0])

    async def revoke(self, which: str) -> str | None:
        """Revoke the token with this name or id; its id. None: no live token has it."""
        with translated(writes=True):
            async with self._pool.connection() as connection:
                row = await (await connection.execute(sql("revoke_token"), {"which": which})).fetchone()
        return row[0] if row else None

    async def touch(self, ids: Sequence[str]) -> None:
        """These were used; written down at most once a minute for each."""
        with translated(writes=True):
            async with self._pool.connection() as connection:
                await connection.execute(sql("touch_tokens"), {"ids": [*ids]})
