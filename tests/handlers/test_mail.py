"""The mail that is made of a payload: nobody can add a header or a recipient to it."""

from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskrunner.handlers.mail import Email, compose, mailbox

HEADERS = {"From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding", "MIME-Version"}
CONTROLS = "\r\n\t\0\x01\x0b\x0c\x1b\x1c\x1d\x1e\x7f\x85\u2028\u2029"
SENDER = mailbox("Task Runner <tasks@sender.example>")


def composed(**payload: Any) -> EmailMessage:
    content = compose(Email.model_validate({"to": "user@example.com", **payload}), sender=SENDER, message_id="<1@sender.example>")
    assert content.isascii()
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert content.replace(b"\r\n", b"").count(b"\r") + content.replace(b"\r\n", b"").count(b"\n") == 0
    return message_from_bytes(content, policy=policy.default)


def addresses(mail: EmailMessage, header: str) -> list[str]:
    return [address.addr_spec for address in mail[header].addresses]


def test_the_smallest_mail() -> None:
    mail = composed(message="Hello")
    assert set(mail.keys()) == HEADERS
    assert (mail["Subject"], mail["Message-ID"], mail.get_content()) == ("A message from taskrunner", "<1@sender.example>", "Hello\r\n")
    assert (addresses(mail, "from"), mail["from"].addresses[0].display_name) == (["tasks@sender.example"], "Task Runner")
    assert mail["Date"].datetime.tzinfo is not None


def test_all_fields() -> None:
    mail = composed(
        to=["user@example.com", "Ann Other <ann@example.com>"],
        cc='"Doe, \\"J\\"" <jd@example.com>',
        bcc=["hidden@example.com"],
        reply_to="Zoë Ünsal, Büro <zoe@example.com>",
        subject="Grüße ☃ " * 20,
        text="Hallo, Zoë",
        html="<p>Hallo, Zoë</p>",
    )
    assert set(mail.keys()) == HEADERS - {"Content-Transfer-Encoding"} | {"Cc", "Reply-To"}
    assert addresses(mail, "to") == ["user@example.com", "ann@example.com"]
    assert (addresses(mail, "cc"), mail["cc"].addresses[0].display_name) == (["jd@example.com"], 'Doe, "J"')
    assert (addresses(mail, "reply-to"), mail["reply-to"].addresses[0].display_name) == (["zoe@example.com"], "Zoë Ünsal, Büro")
    assert mail["subject"] == "Grüße ☃ " * 20
    assert mail.get_content_type() == "multipart/alternative"
    assert [(part.get_content_type(), part.get_content().strip()) for part in mail.iter_parts()] == [
        ("text/plain", "Hallo, Zoë"),
        ("text/html", "<p>Hallo, Zoë</p>"),
    ]
    assert "hidden" not in mail.as_string()


def test_html_alone() -> None:
    mail = composed(html="<p>Hello</p>")
    assert (mail.get_content_type(), mail.get_content().strip()) == ("text/html", "<p>Hello</p>")


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("field", ["to", "cc", "bcc", "reply_to", "subject", "name"])
def test_control_characters_are_refused_in_every_header(field: str, control: str) -> None:
    texts = [
        f"a{control}b@example.com",
        f"a@example.com{control}Bcc: victim@example.com",
        f"{control}a@example.com",
        f"a@example.com{control}",
    ]
    if field == "name":
        field, texts = "cc", [f"A{control}B <a@example.com>", f'"A{control}B" <a@example.com>', f"A <a@example.com{control}>"]
    for text in texts:
        for value in (text, ["fine@example.com", text]) if field != "subject" else (text,):
            with pytest.raises(ValidationError, match=r"must not hold control characters or line breaks"):
                Email.model_validate({"to": "user@example.com", "message": "x", field: value})


NOT_ONE_ADDRESS = """
    user | @example.com | user@ | a@b@c | a b@example.com | a,b@example.com | a@x.example, b@x.example | a@x.example b@x.example
    a@x.example;b@x.example | "a b"@example.com | a@[127.0.0.1] | a@-x.example | a@x..example | .a@x.example | a..b@x.example
    a@x_y.example | a@x.example\\ | <<a@x.example>> | A <a@x.example> <b@x.example> | A <a@x.example | a@x.example> | A <>
    <a@x.example>, b@x.example | B: a@x.example; | "A" B <a@x.example> | a@x.example (comment) | <@relay:a@x.example>
    ü@example.com | a@exämple.com
"""
TOO_LONG = [
    "a" * 65 + "@example.com",
    "a@" + "x" * 64 + ".example",
    "a@" + "x." * 130 + "example",
    "x" * 600 + " <a@example.com>",
    " " * 600,
]


@pytest.mark.parametrize("text", [*(text.strip() for text in NOT_ONE_ADDRESS.replace("\n", "|").split("|")), *TOO_LONG, 5, None, ["a@b.c"]])
def test_what_is_not_one_plain_address_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"must be one address|an address is text"):
        mailbox(text)


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("user@example.com", "", "user@example.com"),
        (" user+tag.x@sub.example.co.uk ", "", "user+tag.x@sub.example.co.uk"),
        ("root@localhost", "", "root@localhost"),
        ("<user@example.com>", "", "user@example.com"),
        ("A B <user@example.com>", "A B", "user@example.com"),
        ("Bücher, AG <user@xn--bcher-kva.example>", "Bücher, AG", "user@xn--bcher-kva.example"),
        (r'"A \"B\" \\ <x@y>, c@d" <o\'x@example.com>'.replace("\\'", "'"), r'A "B" \ <x@y>, c@d', "o'x@example.com"),
    ],
)
def test_an_address_with_or_without_a_name(text: str, name: str, spec: str) -> None:
    address = mailbox(text)
    assert (address.display_name, address.addr_spec) == (name, spec)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"message": "x"}, "to"),
        ({"to": [], "message": "x"}, "at least 1"),
        ({"to": "a@b.c"}, "give message, html or both"),
        ({"to": "a@b.c", "message": "x", "text": "y"}, "text"),
        ({"to": "a@b.c", "message": "x", "from": "ceo@bank.example"}, "from"),
        ({"to": "a@b.c", "message": "x", "headers": {}}, "headers"),
        ({"to": "a@b.c", "message": "x", "subject": "x" * 901}, "subject"),
        ({"to": [f"a{n}@b.c" for n in range(99)], "cc": "c@b.c", "bcc": "d@b.c", "message": "x"}, "at most 100 recipients .*, not 101"),
    ],
)
def test_a_payload_that_does_not_fit_says_why(payload: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Email.model_validate(payload)


def test_a_hundred_recipients_each_once() -> None:
    email = Email.model_validate(
        {"to": [f"A <a{n}@b.c>" for n in range(98)], "cc": ["c@b.c", "a0@b.c"], "bcc": ["d@b.c", "c@b.c"], "message": "x"}
    )
    assert email.recipients == [*(f"a{n}@b.c" for n in range(98)), "c@b.c", "d@b.c"]


TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=100)


@given(names=st.lists(TEXT, min_size=1, max_size=6), subject=TEXT, body=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_whatever_the_text_the_mail_names_exactly_its_recipients(names: list[str], subject: str, body: str) -> None:
    to = ['"' + name.replace("\\", "\\\\").replace('"', '\\"') + f'" <user{n}@example.com>' for n, name in enumerate(names)]
    mail = composed(to=to, subject=subject, message=body)
    assert sorted(mail.keys()) == sorted(HEADERS)
    assert addresses(mail, "to") == [f"user{n}@example.com" for n in range(len(names))]
    assert ["".join(address.display_name.split()) for address in mail["to"].addresses] == ["".join(name.split()) for name in names]
    assert mail["subject"] == subject
