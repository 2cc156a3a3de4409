"""The ``email`` task: its payload, and the message that is made of it."""

import re
from collections.abc import Iterable
from email import policy
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

from taskrunner.handlers.text import Line, one_line

MOST_RECIPIENTS = 100
_NAMED = re.compile(r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"\s*|(?P<name>[^<>"]*))<(?P<inside>[^<>]*)>')
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_PLAIN_NAME = re.compile(r"[\w-]+(?: [\w-]+)*", re.ASCII)
_PLAIN_SUBJECT = re.compile(r"(?!.*=\?)[!-~]+(?: [!-~]+)*", re.ASCII)
_SPEC = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})*", re.ASCII)


def mailbox(text: Any) -> Address:
    """``user@example.com`` or ``Name <user@example.com>`` as an address. Raises ``ValueError`` for anything else, so for two addresses."""
    if not isinstance(text, str) or len(text) > 500:
        raise ValueError("an address is text of at most 500 characters")
    name, spec = "", one_line(text).strip()
    if named := _NAMED.fullmatch(spec):
        name = named["name"].strip() if named["quoted"] is None else re.sub(r"\\(.)", r"\1", named["quoted"])
        spec = named["inside"].strip()
    if not _SPEC.fullmatch(spec) or spec.index("@") > 64 or len(spec) > 254:
        raise ValueError(
            "must be one address such as user@example.com or Name <user@example.com>, in ASCII but for the name; several are a list"
        )
    return Address(name, addr_spec=spec)


def _several(value: Any) -> Any:
    return () if value is None else (value,) if isinstance(value, str) else value


Mailboxes = Annotated[tuple[Annotated[Address, PlainValidator(mailbox)], ...], BeforeValidator(_several)]


class Email(BaseModel):
    """Payload of an ``email`` task. Addresses are text or lists of it; ``text`` is another name for ``message``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Annotated[Mailboxes, Field(min_length=1)]
    cc: Mailboxes = ()
    bcc: Mailboxes = ()
    reply_to: Mailboxes = ()
    subject: Line = Field("A message from taskrunner", max_length=900)
    message: str | None = Field(None, validation_alias=AliasChoices("message", "text"))
    html: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.message is None and self.html is None:
            raise ValueError("give message, html or both")
        if len(self.recipients) > MOST_RECIPIENTS:
            raise ValueError(f"a mail has at most {MOST_RECIPIENTS} recipients (to, cc and bcc together), not {len(self.recipients)}")
        return self

    @property
    def recipients(self) -> list[str]:
        """Who gets the mail, each once."""
        return list(dict.fromkeys(address.addr_spec for address in (*self.to, *self.cc, *self.bcc)))


def compose(email: Email, *, sender: Address, message_id: str) -> bytes:
    """The mail as it goes over the wire: 7-bit lines ending in CRLF. Nobody in ``bcc`` is named in it.

    The headers with foreign text are written by us and stored raw: the folding in Python's email package puts the comma between two
    addresses into an encoded word (CVE-2025-1795; 3.11 to 3.13.1), so that recipients run into each other.
    """
    message = EmailMessage(policy=policy.SMTP.clone(cte_type="7bit", refold_source="none"))
    for name, addresses in (("From", [sender]), ("To", email.to), ("Cc", email.cc), ("Reply-To", email.reply_to)):
        if addresses:
            message.set_raw(name, _written(addresses))
    message.set_raw("Subject", _phrase(email.subject, _PLAIN_SUBJECT))
    message.set_raw("Message-ID", message_id)
    message.set_raw("Date", formatdate(localtime=True))
    message.set_raw("Auto-Submitted", "auto-generated")  # RFC 3834: keeps holiday answers away
    if email.message is not None:
        message.set_content(email.message)
    if email.html is not None and email.message is not None:
        message.add_alternative(email.html, subtype="html")
    elif email.html is not None:
        message.set_content(email.html, subtype="html")
    return message.as_bytes()


def _written(addresses: Iterable[Address]) -> str:
    return ",\r\n ".join(
        f"{_phrase(address.display_name, _PLAIN_NAME)} <{address.addr_spec}>" if address.display_name else address.addr_spec
        for address in addresses
    )


def _phrase(text: str, plain: re.Pattern[str]) -> str:
    """``text`` as it is where it is short and plain, else as RFC 2047 encoded words, folded: nothing in them can mean anything."""
    return text if len(text) <= 60 and plain.fullmatch(text) else Header(text, "utf-8", header_name="Reply-To").encode(linesep="\r\n")
