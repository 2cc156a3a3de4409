"""``/api/session``: a browser signs in. Its token goes into a cookie that no script can read: EventSource cannot send a header."""

from dataclasses import dataclass
from typing import Annotated

from aiohttp import hdrs, web
from pydantic import ConfigDict, Field, Strict, TypeAdapter

from taskrunner.api import shapes
from taskrunner.api.access import COOKIE, Gate
from taskrunner.api.documents import answer
from taskrunner.api.errors import Problem
from taskrunner.api.filters import read_body
from taskrunner.api.requests import json_body
from taskrunner.api.routes import INVALID, JSON, UNAUTHORIZED, Answer, Body, Route
from taskrunner.domain.access import Caller

MOST_BYTES = 1 << 20
PATH = "/api"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A token."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    token: Annotated[str, Strict(), Field(min_length=1, max_length=1000)]


SIGN_IN = TypeAdapter(SignIn)


class SessionRoutes:
    """Handlers of ``/api/session``."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def routes(self) -> list[Route]:
        """Paths, handlers, and what is to be said about them."""
        return [
            Route(
                method="GET",
                path="/api/session",
                handler=self.get,
                group="session",
                scope=None,
                answers={200: Answer("what you may do", shapes.Session)},
            ),
            Route(
                method="POST",
                path="/api/session",
                handler=self.sign_in,
                group="session",
                scope=None,
                body=Body({JSON: SignIn}, {"token": "trk_0123456789ab_…"}),
                answers={200: Answer("what you may do now", shapes.Session, headers={"Set-Cookie": "the token, for the browser only"})},
                errors=(INVALID, UNAUTHORIZED),
            ),
            Route(
                method="DELETE",
                path="/api/session",
                handler=self.sign_out,
                group="session",
                scope=None,
                answers={204: Answer("signed out")},
            ),
        ]

    async def get(self, request: web.Request) -> web.Response:
        """Whether a token is needed here, and what you may do with the one that you sent."""
        caller, _ = await self._gate.caller(request)
        return answer(self._session(caller), headers={hdrs.CACHE_CONTROL: "no-store"})

    async def sign_in(self, request: web.Request) -> web.Response:
        """Sign a browser in: its later requests count as sent with this token, until it is closed or signs out.

        Programs send the token with each request instead, as `Authorization: Bearer …`.
        """
        secret = read_body(SIGN_IN, await json_body(request, most=MOST_BYTES)).token
        caller = await self._gate.holder(secret)
        if caller is None:
            raise Problem(401, UNAUTHORIZED.code, "this token is unknown, revoked or expired", headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
        response = answer(self._session(caller), headers={hdrs.CACHE_CONTROL: "no-store"})
        response.set_cookie(COOKIE, secret, path=PATH, httponly=True, samesite="Strict", secure=_is_secure(request))
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """Sign the browser out. The token itself stays good: `taskrunner token revoke` ends it."""
        response = web.Response(status=204)
        response.del_cookie(COOKIE, path=PATH, httponly=True, samesite="Strict", secure=_is_secure(request))
        return response

    def _session(self, caller: Caller | None) -> shapes.Session:
        return {
            "required": self._gate.closed,
            "name": caller.name if caller else None,
            "scopes": sorted(caller.scopes) if caller else [],
        }


def _is_secure(request: web.Request) -> bool:
    """Whether the browser came over TLS: what stands between us and it ends that, but not the page's origin."""
    return request.secure or request.headers.get(hdrs.ORIGIN, "").startswith("https://")
