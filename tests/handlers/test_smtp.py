"""The email task against a real SMTP server on loopback."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import Envelope
from handlers.sinks import Listen, MailSink, Run, make_context, smtp_server

from taskrunner.domain.errors import ConfigurationError
from taskrunner.handlers.smtp import Relay
from taskrunner.sdk import Fail, Retry, Verdict

SEED = {"to": "user@example.com", "message": "Hello"}
LOGIN = "me%40x:p%40ss%20word%2F%C3%A9"


@pytest.fixture
def sink() -> MailSink:
    return MailSink()


@pytest.fixture
async def url(sink: MailSink) -> AsyncIterator[str]:
    async with smtp_server(sink) as port:
        yield f"smtp://127.0.0.1:{port}"


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server certificate for 127.0.0.1 by an authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def read(envelope: Envelope) -> Any:
    assert isinstance(envelope.content, bytes)
    return message_from_bytes(envelope.content, policy=policy.default)


async def test_the_seeds_mail_arrives(run: Run, sink: MailSink, url: str) -> None:
    ctx = make_context()
    result = await run("email", SEED, ctx, smtp_url=url, mail_from="Tasks <tasks@sender.example>")
    assert result == {"message_id": f"<{ctx.task_id}@sender.example>", "accepted": ["user@example.com"], "refused": {}}
    [envelope] = sink.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == ("tasks@sender.example", ["user@example.com"])
    mail = read(envelope)
    assert (mail["from"], mail["to"], mail["message-id"]) == ("Tasks <tasks@sender.example>", "user@example.com", result["message_id"])
    assert mail.get_content().strip() == "Hello"


async def test_a_retry_carries_the_same_message_id(run: Run, sink: MailSink, url: str) -> None:
    ctx = make_context()
    for _ in range(2):
        await run("email", SEED, ctx, smtp_url=url)
    first, second = sink.mails
    assert read(first)["message-id"] == read(second)["message-id"] == f"<{ctx.task_id}@localhost>"


async def test_blind_copies_are_delivered_and_not_named(run: Run, sink: MailSink, url: str) -> None:
    result = await run("email", {**SEED, "cc": "C <c@example.com>", "bcc": ["hidden@example.com"]}, smtp_url=url)
    assert result["accepted"] == ["user@example.com", "c@example.com", "hidden@example.com"] == sink.mails[0].rcpt_tos
    assert b"hidden" not in (sink.mails[0].original_content or b"")
    assert read(sink.mails[0])["bcc"] is None


@pytest.mark.parametrize("end", ["\n.\n", "\r.\r", "\r\n.\r\n", "\n.\r\n", "\r.\n", "\r\n.\r", "\r\n\0.\r\n"])
async def test_a_body_cannot_smuggle_a_second_mail(run: Run, sink: MailSink, url: str, end: str) -> None:
    evil = f"first{end}MAIL FROM:<ceo@bank.example>{end}RCPT TO:<victim@example.com>{end}DATA{end}Subject: second{end}{end}QUIT"
    for kind in ("message", "html"):
        await run("email", {"to": "user@example.com", kind: evil}, smtp_url=url)
    assert [(mail.mail_from, mail.rcpt_tos) for mail in sink.mails] == [("taskrunner@localhost", ["user@example.com"])] * 2
    for mail in sink.mails:
        lines = read(mail).get_content().splitlines()
        assert [line for line in lines if line.startswith(("Subject", "QUIT"))] == ["Subject: second", "QUIT"]


async def test_refused_recipients_are_reported_and_the_others_get_the_mail(run: Run, sink: MailSink, url: str) -> None:
    result = await run("email", {**SEED, "cc": ["unknown@example.com", "busy@example.com"]}, smtp_url=url)
    assert result["accepted"] == ["user@example.com"]
    assert result["refused"] == {"unknown@example.com": "550 no such user", "busy@example.com": "451 come back later"}
    assert sink.mails[0].rcpt_tos == ["user@example.com"]


@pytest.mark.parametrize(
    ("to", "answer", "refusal"),
    [
        ("unknown@example.com", "250", Fail("refused every recipient: unknown@example.com: 550 no such user")),
        (
            "unknown@example.com busy@example.com",
            "250",
            Retry("unknown@example.com: 550 no such user; busy@example.com: 451 come back later"),
        ),
        ("user@example.com", "554 smells of spam", Fail("refused the mail: 554 smells of spam")),
        ("user@example.com", "451 disk full", Retry("refused the mail: 451 disk full")),
    ],
)
async def test_5xx_is_for_good_and_4xx_is_tried_again(run: Run, to: str, answer: str, refusal: Verdict) -> None:
    sink = MailSink(data_answer=answer)
    async with smtp_server(sink) as port:
        with pytest.raises(type(refusal), match=str(refusal)):
            await run("email", {"to": to.split(), "message": "x"}, smtp_url=f"smtp://127.0.0.1:{port}")
    assert sink.mails == []


async def test_a_server_that_is_down_is_tried_again(run: Run) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Retry, match="mail server of TASKRUNNER_SMTP_URL could not be used"):
            await run("email", SEED, smtp_url=f"smtp://127.0.0.1:{closed.getsockname()[1]}")


@pytest.mark.parametrize("greeting", [b"", b"554 go away\r\n", b"nonsense\r\n", b"421 caf\xe9 closed\r\n"])
async def test_a_server_that_does_not_talk_is_tried_again(run: Run, listen: Listen, greeting: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()

    with pytest.raises(Retry, match="mail server of TASKRUNNER_SMTP_URL could not be used") as caught:
        await run("email", SEED, smtp_url=f"smtp://127.0.0.1:{await listen(answer)}")
    assert "\\" not in str(caught.value)
    assert str(caught.value).encode()  # foreign bytes did not reach it


async def test_a_server_that_hangs_up_after_taking_the_mail_has_taken_it(run: Run, listen: Listen) -> None:
    taken = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            if line == b"DATA\r\n":
                writer.write(b"354 go on\r\n")
                taken.append(await reader.readuntil(b"\r\n.\r\n"))
                writer.write(b"250 taken\r\n")
                return
            writer.write(b"250 yes\r\n")

    result = await run("email", SEED, smtp_url=f"smtp://127.0.0.1:{await listen(answer)}")
    assert (result["accepted"], len(taken)) == (["user@example.com"], 1)


async def test_starttls_is_used_where_it_is_offered(run: Run, sink: MailSink, certificate: ssl.SSLContext) -> None:
    async with smtp_server(sink, starttls=certificate, require_starttls=True) as port:
        await run("email", SEED, smtp_url=f"smtp://127.0.0.1:{port}")
    assert sink.encrypted == [True]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # aiosmtpd does not know that it is inside TLS
@pytest.mark.filterwarnings("ignore:Session.login_data is deprecated")  # aiosmtpd's own doing
async def test_smtps_with_percent_encoded_credentials(run: Run, sink: MailSink, certificate: ssl.SSLContext) -> None:
    async with smtp_server(sink, tls=certificate, authenticator=sink.login, auth_require_tls=False, auth_required=True) as port:
        await run("email", SEED, smtp_url=f"smtps://{LOGIN}@127.0.0.1:{port}")
        with pytest.raises(Retry, match="could not be used") as caught:  # the operator's fault: no reason to lose the mail
            await run("email", SEED, smtp_url=f"smtps://me:wrong-word@127.0.0.1:{port}")
    assert sink.logins[0] == (b"me@x", sink.password)
    assert len(sink.mails) == 1
    assert "wrong-word" not in str(caught.value)


async def test_a_mail_server_that_nobody_vouches_for_gets_no_mail(run: Run, sink: MailSink) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with smtp_server(sink, starttls=context) as port:
        with pytest.raises(Retry, match="certificate"):
            await run("email", SEED, smtp_url=f"smtp://127.0.0.1:{port}")
    assert sink.mails == []


async def test_many_mails_share_a_few_connections(run: Run, listen: Listen) -> None:
    now = most = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        writer.write(b"220 hi\r\n")
        while line := await reader.readline():
            writer.write(b"354 go on\r\n" if line == b"DATA\r\n" else b"221 bye\r\n" if line == b"QUIT\r\n" else b"250 yes\r\n")
            if line == b"DATA\r\n":
                await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 taken\r\n")
        now -= 1

    url = f"smtp://127.0.0.1:{await listen(answer)}"
    await run("email", SEED, smtp_url=url)
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(run("email", SEED, smtp_url=url))
    assert 1 < most <= 9  # eight, and one that the server has not yet seen going


async def test_without_a_server_the_mail_is_a_file(run: Run, tmp_path: Path) -> None:
    ctx, folder = make_context(), tmp_path / "new" / "mail"
    result = await run("email", {**SEED, "bcc": "hidden@example.com"}, ctx, mail_dir=folder)
    path = folder / f"{ctx.task_id}.eml"
    assert result == {
        "message_id": f"<{ctx.task_id}@localhost>",
        "written_to": str(path),
        "recipients": ["user@example.com", "hidden@example.com"],
    }
    await run("email", SEED, ctx, mail_dir=folder)  # a second attempt replaces it
    assert list(folder.iterdir()) == [path]
    mail = message_from_bytes(path.read_bytes(), policy=policy.default)
    assert (mail["to"], mail["message-id"], mail["bcc"]) == ("user@example.com", result["message_id"], None)
    assert folder.stat().st_mode & 0o077 == 0


async def test_a_server_goes_before_the_folder(run: Run, sink: MailSink, url: str, tmp_path: Path) -> None:
    assert "accepted" in await run("email", SEED, smtp_url=url, mail_dir=tmp_path / "mail")
    assert len(sink.mails) == 1
    assert not (tmp_path / "mail").exists()


async def test_without_either_the_task_fails_for_good_and_names_the_setting(run: Run) -> None:
    with pytest.raises(Fail, match="TASKRUNNER_SMTP_URL"):
        await run("email", SEED)


@pytest.mark.parametrize(
    ("url", "relay"),
    [
        ("smtp://mail", ("mail", 25, None, "", False)),
        ("smtps://mail/", ("mail", 465, None, "", True)),
        ("SMTP://Mail:2525", ("mail", 2525, None, "", False)),
        ("smtp://[::1]:25", ("::1", 25, None, "", False)),
        ("smtp://user@mail", ("mail", 25, "user", "", False)),
        (f"smtps://{LOGIN}@mail:1", ("mail", 1, "me@x", "p@ss word/é", True)),
    ],
)
def test_a_mail_server_by_url(url: str, relay: tuple[Any, ...]) -> None:
    found = Relay.from_url(url)
    assert (found.host, found.port, found.user, found.password, found.implicit_tls) == relay


BAD_URLS = """
    mail.example.com mail:25 http://u:s3cret@mail smtp:// smtp://:s3cret@mail smtp://u:s3cret@mail:port smtp://u:s3cret@mail:70000 smtp://u:s3cret@[::1
    smtp://u:s3cret@mail/inbox smtp://u:s3/cret@mail smtp://u:s3cret@mail?tls=no smtp://u:s3cret#x@mail
"""


@pytest.mark.parametrize("url", BAD_URLS.split())
async def test_a_bad_url_stops_the_start_and_the_password_is_not_shown(run: Run, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^TASKRUNNER_SMTP_URL") as caught:
        Relay.from_url(url)
    assert "s3" not in str(caught.value)
    with pytest.raises(ConfigurationError):
        await run("email", SEED, smtp_url=url)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("mail_from", "nobody"), ("mail_from", "a@b\r\nBcc: c@d"), ("webhook_secret", "x")],
)
async def test_a_bad_setting_stops_the_start_by_its_name(run: Run, setting: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^TASKRUNNER_{setting.upper()} must"):
        await run("email", SEED, **{setting: value})
