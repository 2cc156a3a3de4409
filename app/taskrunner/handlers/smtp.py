"""Handing a mail to the SMTP server of ``TASKRUNNER_SMTP_URL``."""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import aiosmtplib

from taskrunner.domain.errors import ConfigurationError
from taskrunner.handlers.text import storable
from taskrunner.sdk import Fail, Retry, Verdict

_PORTS = {"smtp": 25, "smtps": 465}
_FORM = 'smtp://user:password@host:port or smtps://…, with special characters of user and password percent-encoded ("@" is %40)'


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A mail server. ``implicit_tls`` is TLS from the first byte; otherwise STARTTLS is used where it is offered."""

    host: str
    port: int
    user: str | None
    password: str
    implicit_tls: bool

    @classmethod
    def from_url(cls, url: str) -> "Relay":
        """Read ``TASKRUNNER_SMTP_URL``. Raises ``ConfigurationError``, which never repeats the URL: it may hold a password."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(f"TASKRUNNER_SMTP_URL has a bad host or port; write it as {_FORM}") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigurationError(f"TASKRUNNER_SMTP_URL must be {_FORM}")
        if parts.password and not parts.username:
            raise ConfigurationError("TASKRUNNER_SMTP_URL has a password but no user")
        return cls(
            host=parts.hostname,
            port=port or _PORTS[parts.scheme],
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or ""),
            implicit_tls=parts.scheme == "smtps",
        )


class SmtpSender:
    """Sends mails to one relay, a connection each, a few at a time: relays refuse clients that open a hundred."""

    def __init__(self, relay: Relay, *, connections: int = 8) -> None:
        self._relay = relay
        self._tls = ssl.create_default_context()
        self._free = asyncio.Semaphore(connections)

    async def send(self, content: bytes, *, sender: str, recipients: Sequence[str]) -> dict[str, str]:
        """Hand over ``content``; returns the refused recipients with the server's reason, when at least one was accepted.

        Raises ``Fail`` when the server refuses this mail for good (5xx), else ``Retry``: a wrong password or a server
        that is down is the operator's to repair, and no reason to lose the mail.
        """
        try:
            async with self._free:
                return await self._send(content, sender, recipients)
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
            reason = "; ".join(f"{one.recipient}: {_answer(one)}" for one in refused)
            raise _verdict(f"the mail server refused every recipient: {reason}", [one.code for one in refused]) from None
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as error:
            raise _verdict(f"the mail server refused the mail: {_answer(error)}", [error.code]) from None
        except (aiosmtplib.SMTPException, OSError) as error:
            reason = _answer(error) if isinstance(error, aiosmtplib.SMTPResponseException) else str(error)
            raise Retry(f"the mail server of TASKRUNNER_SMTP_URL could not be used: {reason}") from None

    async def _send(self, content: bytes, sender: str, recipients: Sequence[str]) -> dict[str, str]:
        relay = self._relay
        login: dict[str, Any] = {} if relay.user is None else {"username": relay.user.encode(), "password": relay.password.encode()}
        client = aiosmtplib.SMTP(
            hostname=relay.host,
            port=relay.port,
            use_tls=relay.implicit_tls,
            tls_context=self._tls,
            local_hostname=socket.gethostname(),  # the default asks the DNS, for each mail
            **login,
        )
        try:
            await client.connect()
            refused, _ = await client.sendmail(sender, recipients, content)
            with suppress(aiosmtplib.SMTPException):  # the mail is accepted: a bad farewell must not send it twice
                await client.quit(timeout=2)
        finally:
            client.close()
        return {recipient: f"{code} {storable(text)}" for recipient, (code, text) in refused.items()}


def _answer(error: aiosmtplib.SMTPResponseException) -> str:
    return f"{error.code} {storable(error.message)}"


def _verdict(reason: str, codes: Sequence[int]) -> Verdict:
    return Fail(reason) if all(500 <= code < 600 for code in codes) else Retry(reason)
