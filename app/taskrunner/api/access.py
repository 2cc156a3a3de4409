"""Who calls, and what they may: tokens of the settings and of the database, in a header or in the browser's cookie.

What the database has is read at most every half second, and only while somebody calls. A request waits for that only when nobody has
called for a second; so a token that is revoked is refused a second later, and usually no request pays a round trip.
"""

import asyncio
import re
from collections.abc import Mapping
from hmac import compare_digest
from typing import NamedTuple

from aiohttp import hdrs, web

from taskrunner.api.errors import Problem
from taskrunner.api.routes import Handle, Route
from taskrunner.domain.access import ANYBODY, Caller, Scope, is_local, scopes_of, token_of
from taskrunner.domain.errors import ConfigurationError, TaskrunnerError, Unavailable
from taskrunner.settings import Settings
from taskrunner.store.tokens import Token, Tokens, digest, id_of

COOKIE = "taskrunner_token"
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
TTL = 1.0  # seconds
EARLY = 0.5  # seconds of age from which it is read anew, beside the requests
TOUCH = 60.0  # seconds between two notes of what was used
# Names that nobody else can give this machine (programs may send none), and names that only its own network can give: no site has one.
NEAR = re.compile(r"|(localhost|[\d.]+|\[[0-9a-f:.]+\])(:\d+)?", re.IGNORECASE)
INSIDE = re.compile(r"([\w-]+|[\w.-]+\.(internal|local))(:\d+)?", re.ASCII | re.IGNORECASE)


class _Known(NamedTuple):
    hash: bytes
    caller: Caller


class _Book(NamedTuple):
    """What the database had. ``closed``: it has, or had, a token, so callers need one."""

    tokens: Mapping[str, _Known]
    closed: bool


def caller_of(request: web.Request) -> Caller:
    """Who sent the request. Every route knows."""
    return request[CALLER]


def need(scope: Scope, caller: Caller) -> None:
    """Raises Problem, 403, for a caller whose token is not good for ``scope``."""
    if scope not in caller.scopes:
        raise Problem(
            403,
            "forbidden",
            f"this token is not good for that: it needs the scope {scope}",
            headers={hdrs.WWW_AUTHENTICATE: f'Bearer realm="taskrunner", error="insufficient_scope", scope="{scope}"'},
        )


class Gate:
    """Lets callers in, or not. Where no token was ever made the service is open, to this machine and to whoever the operator says."""

    def __init__(self, tokens: Tokens, settings: Settings) -> None:
        self._tokens = tokens
        self._given = [_given(n, token.get_secret_value()) for n, token in enumerate(settings.api_tokens, 1)]
        self._host = settings.http_host
        self._insecure = settings.insecure
        self._names = {name.lower() for name in settings.http_names}
        self._closed = bool(self._given) or not (settings.insecure or is_local(settings.http_host))
        self._book = _Book({}, closed=True)
        self._read_at = self._touched_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._used: set[str] = set()

    async def refuse_exposure(self) -> None:
        """Raises ConfigurationError where other machines can reach the API and nobody could have a token.

        Where the database cannot say yet whether it has one, the API opens and lets nobody in until it has.
        """
        if self._closed and not self._given:
            try:
                await self._read()
            except Unavailable:
                return
            if not self._book.closed:
                raise ConfigurationError(
                    f"HTTP_HOST {self._host} can be reached from other machines and there is no token: set TASKRUNNER_API_TOKENS, "
                    "make one with `taskrunner token create`, or allow everyone everything with TASKRUNNER_INSECURE=1"
                )

    def guarded(self, route: Route) -> Handle:
        """The handler of ``route`` behind the gate; the handler itself where everyone may come."""
        handler, scope = route.handler, route.scope
        if scope is None:
            return handler

        async def guarded(request: web.Request) -> web.StreamResponse:
            request[CALLER] = await self.admit(request, scope)
            return await handler(request)

        return guarded

    async def admit(self, request: web.Request, scope: Scope) -> Caller:
        """Who calls. Raises Problem: 401 without a good token, 403 with one that is not good for ``scope``."""
        caller, secret = await self.caller(request)
        if caller is None:
            raise _unauthorized(secret)
        need(scope, caller)
        return caller

    async def caller(self, request: web.Request) -> tuple[Caller | None, str | None]:
        """Who calls, None where a token is needed and there is no good one; and the token that was sent, if any was."""
        secret = _secret(request)
        return await self.holder(secret) or self._anybody(request), secret

    async def holder(self, secret: str | None) -> Caller | None:
        """Whose token this is. Raises Unavailable while the database cannot be asked, unless the settings have it."""
        hashed = b"" if secret is None else digest(secret)
        found = None
        for known in self._given:  # all of them, so that the time says nothing
            if compare_digest(known.hash, hashed):
                found = known.caller
        if found is None:
            await self._fresh()
            id_ = "" if secret is None else id_of(secret)
            one = self._book.tokens.get(id_)
            if one is not None and compare_digest(one.hash, hashed):
                self._used.add(id_)
                found = one.caller
        return found

    @property
    def closed(self) -> bool:
        """Whether callers need a token, as far as is known."""
        return self._closed or self._book.closed

    def _anybody(self, request: web.Request) -> Caller | None:
        if self.closed:
            return None
        host = request.headers.get(hdrs.HOST, "")
        if not self._is_ours(host):
            raise Problem(
                403,
                "unknown_host",
                f"without tokens the service answers to this machine's own names only, not to {host!r}, which any page could bring "
                "here: set TASKRUNNER_API_TOKENS, or name it in TASKRUNNER_HTTP_NAMES",
            )
        return ANYBODY

    def _is_ours(self, host: str) -> bool:
        """Whether no stranger's page can have this name. Browsers send nothing else that tells a page's reads over plain HTTP from ours."""
        if NEAR.fullmatch(host) or (self._insecure and INSIDE.fullmatch(host)):
            return True
        return host.partition(":")[0].lower() in self._names

    async def _fresh(self) -> None:
        """Return when what is known of the database's tokens is not older than TTL."""
        age = asyncio.get_running_loop().time() - self._read_at
        if age < EARLY:
            return
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())  # shared by all requests, and outlives the first
            self._reading.add_done_callback(self._done)
        if age > TTL:
            await asyncio.shield(self._reading)

    async def _read(self) -> None:
        now = asyncio.get_running_loop().time()
        found = await self._tokens.list()
        self._book = _Book({token.id: _known(token) for token in found if token.live}, closed=bool(found))
        self._read_at = now
        if self._used and now - self._touched_at > TOUCH:
            used, self._used, self._touched_at = [*self._used], set(), now
            try:
                await self._tokens.touch(used)
            except TaskrunnerError:  # nobody waits for that: the next note has them again
                self._used.update(used)

    def _done(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # whoever waited for it has it; the next one reads again

    def close(self) -> None:
        """Ask nothing more."""
        if self._reading is not None:
            self._reading.cancel()


def _given(n: int, text: str) -> _Known:
    scopes, secret = token_of(text)
    return _Known(digest(secret), Caller(f"TASKRUNNER_API_TOKENS, {n}", scopes))


def _known(token: Token) -> _Known:
    scopes = [word for word in token.scopes if word in {*Scope}]  # a later version may have more
    return _Known(token.hash, Caller(token.name, scopes_of(scopes) if scopes else frozenset()))


def _secret(request: web.Request) -> str | None:
    """The token in the header, else the one in the cookie."""
    value = request.headers.get(hdrs.AUTHORIZATION)
    if value is not None:
        scheme, _, secret = value.partition(" ")
        return secret.strip() if scheme.lower() == "bearer" else None
    return request.cookies.get(COOKIE) if hdrs.COOKIE in request.headers else None


def _unauthorized(secret: str | None) -> Problem:
    if secret is None:
        words, how = "a token is needed: send it as `Authorization: Bearer …`", 'Bearer realm="taskrunner"'
    else:
        words, how = "this token is unknown, revoked or expired", 'Bearer realm="taskrunner", error="invalid_token"'
    return Problem(401, "unauthorized", words, headers={hdrs.WWW_AUTHENTICATE: how})
