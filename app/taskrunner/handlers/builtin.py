"""Opens what the built-in handlers need and hands them out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.headerregistry import Address
from pathlib import Path
from typing import Any

from taskrunner.domain.errors import ConfigurationError
from taskrunner.handlers.address import parse_networks
from taskrunner.handlers.mail import Email, compose, mailbox
from taskrunner.handlers.signing import signing_keys
from taskrunner.handlers.smtp import Relay, SmtpSender
from taskrunner.handlers.webhook import open_session, webhook_handler
from taskrunner.sdk import Context, Fail, Handler, task
from taskrunner.sdk.handler import MARK
from taskrunner.settings import Settings


@asynccontextmanager
async def builtin_handlers(settings: Settings, *, mail_dir: Path | None = None) -> AsyncIterator[dict[str, Handler]]:
    """The built-in handlers by task type, ready on the running loop until the block ends.

    ``mail_dir`` is given where the embedded database is used: there a mail becomes a file as long as no SMTP server is set.
    Raises ``ConfigurationError`` for a setting that cannot work.
    """
    allow = parse_networks(settings.webhook_allow)
    keys = signing_keys(settings.webhook_secret.get_secret_value()) if settings.webhook_secret else ()
    smtp = SmtpSender(Relay.from_url(settings.smtp_url.get_secret_value())) if settings.smtp_url else None
    email = email_handler(_sender(settings.mail_from), smtp=smtp, mail_dir=mail_dir)
    async with open_session(allow) as session:
        yield {handler.task_type: handler for handler in (webhook_handler(session, keys), email)}


def email_handler(sender: Address, *, smtp: SmtpSender | None, mail_dir: Path | None) -> Handler:
    """The handler of ``email`` tasks: over ``smtp``, else into a file in ``mail_dir``, else it fails for good and says what is missing."""

    @task("email")
    async def email(ctx: Context, payload: Email) -> dict[str, Any]:
        """Send the mail. Its Message-ID is made of the task id, so that a second delivery can be recognised."""
        message_id = f"<{ctx.task_id}@{sender.domain}>"
        content = compose(payload, sender=sender, message_id=message_id)
        recipients = payload.recipients
        if smtp:
            refused = await smtp.send(content, sender=sender.addr_spec, recipients=recipients)
            return {"message_id": message_id, "accepted": [one for one in recipients if one not in refused], "refused": refused}
        if mail_dir:
            path = await asyncio.to_thread(_write_mail, mail_dir, ctx, content)
            return {"message_id": message_id, "written_to": str(path), "recipients": recipients}
        raise Fail("there is no mail server: set TASKRUNNER_SMTP_URL to smtp://user:password@host:port for the worker, then retry the task")

    handler: Handler = getattr(email, MARK)
    return handler


def _write_mail(mail_dir: Path, ctx: Context, content: bytes) -> Path:
    """Whole or not at all: a reader of the folder never sees half a mail."""
    mail_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = mail_dir / f"{ctx.task_id}.eml"
    unfinished = path.with_suffix(f".{ctx.attempt}.tmp")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return path


def _sender(text: str) -> Address:
    try:
        return mailbox(text)
    except ValueError as error:
        raise ConfigurationError(f"TASKRUNNER_MAIL_FROM {error}") from error
