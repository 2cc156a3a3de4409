"""Who may do what: the scopes of a token, and whoever calls."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

SHORTEST = 20  # characters of a secret
_SECRET = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # what RFC 6750 lets a bearer token be


class Scope(StrEnum):
    """What a token may be good for. Each route asks for one."""

    READ = "read"  # see tasks, queues, workers and counts, but not what is in a task
    PAYLOADS = "payloads"  # see that, too: payload, result, error, messages
    WRITE = "write"  # create and change tasks
    WORK = "work"  # the door of workers over HTTP
    ADMIN = "admin"  # everything


IMPLIED: Mapping[Scope, frozenset[Scope]] = {
    Scope.READ: frozenset(),
    Scope.PAYLOADS: frozenset({Scope.READ}),
    Scope.WRITE: frozenset({Scope.READ, Scope.PAYLOADS}),
    Scope.WORK: frozenset(),
    Scope.ADMIN: frozenset(Scope),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request: the name of the token, or None where none is needed, and what it is good for."""

    name: str | None
    scopes: frozenset[Scope]


ANYBODY = Caller(None, frozenset(Scope))


def scopes_of(words: Iterable[str]) -> frozenset[Scope]:
    """The scopes that ``words`` name, with those that they imply. Raises ValueError, in words, for others and for none."""
    found: set[Scope] = set()
    for word in words:
        try:
            scope = Scope(word)
        except ValueError:
            raise ValueError(f"has no scope {word!r}: there are {', '.join(Scope)}") from None
        found |= {scope, *IMPLIED[scope]}
    if not found:
        raise ValueError(f"needs at least one scope: {', '.join(Scope)}")
    return frozenset(found)


def token_of(text: str) -> tuple[frozenset[Scope], str]:
    """Scopes and secret of ``secret`` (good for everything) or ``scope+scope:secret``. Raises ValueError, in words without the secret."""
    words, colon, secret = text.rpartition(":")
    if not _SECRET.fullmatch(secret):
        raise ValueError("has characters that a token cannot have: take letters, digits, and . _ ~ + / -")
    if len(secret) < SHORTEST:
        raise ValueError(f"is too short: take {SHORTEST} characters or more, such as those of `openssl rand -hex 20`")
    return scopes_of(words.split("+") if colon else [Scope.ADMIN]), secret


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens on ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
