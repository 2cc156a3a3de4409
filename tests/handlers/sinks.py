"""What the tests of the handlers share: a context built by hand, a call as the worker makes it, and a mail server that keeps mails."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from taskrunner.sdk import Context, Handler

WebHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RawHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[WebHandler], Awaitable[str]]
Listen = Callable[[RawHandler], Awaitable[int]]
Run = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


def make_context(*, timeout: float = 20, attempt: int = 1, traceparent: bytes = b"") -> Context:
    id_ = uuid4().bytes
    return Context(
        id=id_, task_type="any", queue="default", attempt=attempt, max_attempts=5, timeout=timeout, run_at=0, traceparent=traceparent
    )


async def call(handler: Handler, payload: Any, ctx: Context | None = None) -> dict[str, Any]:
    """What the worker does: validate, then call."""
    assert handler.payload is not None
    result: dict[str, Any] = await handler.function(ctx or make_context(), handler.payload.validate_python(payload))
    return result


@dataclass
class MailSink:
    """An SMTP server that keeps what it accepts. Addresses that begin with ``unknown`` get 550, with ``busy`` 451."""

    mails: list[Envelope] = field(default_factory=list)
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    data_answer: str = "250 taken"
    password: bytes = b"p@ss word/\xc3\xa9"

    def login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        self.logins.append((data.login, data.password))
        return AuthResult(success=data.password == self.password, handled=False)

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:  # noqa: N802 — aiosmtpd's name
        if address.startswith("unknown"):
            return "550 no such user"
        if address.startswith("busy"):
            return "451 come back later"
        envelope.rcpt_tos.append(address)
        return "250 yes"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 — aiosmtpd's name
        if self.data_answer.startswith("250") and server.transport:
            self.mails.append(envelope)
            self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        return self.data_answer


@asynccontextmanager
async def smtp_server(
    sink: MailSink, *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()

    def protocol() -> SMTP:
        return SMTP(sink, hostname="sink.example", enable_SMTPUTF8=False, loop=loop, tls_context=starttls, **options)

    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
