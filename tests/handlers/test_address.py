"""The guard against server-side request forgery: what may be dialled, and that nothing else is."""

import asyncio
import socket
import traceback
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
import structlog
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from handlers.sinks import Run, Serve, call
from pydantic import ValidationError

from taskrunner.handlers.address import BlockedError, address_allowed, guarded_sockets, parse_networks
from taskrunner.handlers.webhook import open_session, webhook_handler
from taskrunner.sdk import Fail, Retry

PUBLIC = """
    8.8.8.8 1.1.1.1 93.184.216.34 172.15.255.255 172.32.0.1 100.63.255.255 100.128.0.1 198.17.0.1 223.255.255.255 168.63.129.15
    2606:4700:4700::1111 2a00:1450:4001:81b::200e ::ffff:8.8.8.8 64:ff9b::8.8.8.8
"""

BLOCKED = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254 169.254.170.2
    172.16.0.1 172.31.255.255 192.0.0.8 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
    224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1 ::ffff:0:8.8.8.8
    64:ff9b::a9fe:a9fe 64:ff9b::7f00:1 64:ff9b::168.63.129.16 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1
    2002:7f00:1::1 2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo ::1%lo fec0::1 ff02::1 ff0e::1 4000::1
"""


@pytest.mark.parametrize("text", PUBLIC.split())
def test_public_addresses_pass(text: str) -> None:
    assert address_allowed(ip_address(text))


@pytest.mark.parametrize("text", BLOCKED.split())
def test_everything_else_is_blocked(text: str) -> None:
    assert not address_allowed(ip_address(text))


@pytest.mark.parametrize(
    ("allow", "text", "passes"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("10.1.0.0/16", "64:ff9b::10.1.2.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("10.1.0.0/16", "169.254.169.254", False),
        ("10.1.0.0/16", "2002:a01:203::1", False),
        ("fd00:1::/32", "fd00:1::5", True),
        ("fd00:1::/32", "fd00:ec2::254", False),
        ("127.0.0.1/32", "127.0.0.1", True),
        ("127.0.0.1/32", "::1", False),
    ],
)
def test_the_allow_list_opens_its_networks_and_nothing_beside_them(allow: str, text: str, passes: bool) -> None:
    assert address_allowed(ip_address(text), parse_networks([allow])) is passes


@pytest.mark.parametrize("target", ["localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", ""])
def test_what_is_not_an_address_in_its_one_spelling_is_not_dialled(target: str) -> None:
    with pytest.raises(BlockedError):
        guarded_sockets(parse_networks(["0.0.0.0/0", "::/0"]))((socket.AF_INET, socket.SOCK_STREAM, 6, "", (target, 80)))


def test_only_internet_sockets_are_made() -> None:
    with pytest.raises(BlockedError):
        guarded_sockets(parse_networks(["0.0.0.0/0"]))((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 80)))


class Tripwire:
    """Listens on every address of this machine; ``touched`` counts who came."""

    def __init__(self) -> None:
        self.touched = 0
        self.port = 0

    async def on_connection(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.touched += 1
        writer.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture
async def tripwire() -> AsyncIterator[Tripwire]:
    wire = Tripwire()
    six = has_ipv6()
    listener = socket.create_server(("", 0), family=socket.AF_INET6 if six else socket.AF_INET, dualstack_ipv6=six)
    async with await asyncio.start_server(wire.on_connection, sock=listener):
        wire.port = listener.getsockname()[1]
        yield wire


async def test_the_tripwire_works(tripwire: Tripwire, run: Run) -> None:
    ways = [("127.0.0.1", "127.0.0.0/8"), ("127.0.0.2", "127.0.0.0/8"), *([("[::1]", "::1/128")] if has_ipv6() else [])]
    for host, allow in ways:
        with pytest.raises(Retry, match="broke before the whole answer came"):
            await run("webhook", {"url": f"http://{host}:{tripwire.port}/"}, webhook_allow=allow)
    assert tripwire.touched == len(ways)


HOSTS = """
    127.0.0.1 127.0.0.2 127.1 127.0.1 0 0.0.0.0 2130706433 017700000001 0177.0.0.1 0x7f000001 0x7f.0.0.1 0x7f.1 127.0.0.1. 4294967295
    localhost LOCALHOST localhost. ①②⑦.⓪.⓪.① 127。0。0。1
    [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [::ffff:0:127.0.0.1] [64:ff9b::7f00:1]
    [64:ff9b::a9fe:a9fe] [2002:7f00:1::1] [2001:0:7f00:1::1] [fe80::1%25lo] [::1%25lo] [fec0::1] [fd00:ec2::254] [ff02::1]
    10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 169.254.169.254 168.63.129.16 192.0.0.192 198.18.0.1 224.0.0.1 255.255.255.255
    user@127.0.0.1 user:word@127.0.0.1 8.8.8.8@127.0.0.1 8.8.8.8\\@127.0.0.1 @127.0.0.1
"""


async def test_no_spelling_of_an_inner_address_is_dialled(tripwire: Tripwire, run: Run) -> None:
    for host in HOSTS.split():
        for scheme in ("http", "https"):
            with pytest.raises((Retry, Fail, ValidationError)) as caught:
                await run("webhook", {"url": f"{scheme}://{host}:{tripwire.port}/", "timeout": 2}, webhook_allow="")
            assert "broke" not in str(caught.value), host
    assert tripwire.touched == 0


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/", "unix:///run/x.sock", "http+unix://x/", "//127.0.0.1/", "127.0.0.1", "http:", ""]
)
async def test_other_schemes_are_refused(run: Run, url: str) -> None:
    with pytest.raises(ValidationError, match="http:// or https:// URL"):
        await run("webhook", {"url": url})


@pytest.mark.parametrize("user", ["user", "user:word", ":word", "8.8.8.8"])
async def test_a_user_in_the_url_is_refused(run: Run, user: str) -> None:
    with pytest.raises(ValidationError, match="must not hold a user name or password"):
        await run("webhook", {"url": f"http://{user}@127.0.0.1/"})


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "127.1", "2130706433", "0177.0.0.1"])
async def test_a_host_that_cannot_be_looked_up_fails_for_good(run: Run, host: str) -> None:
    with pytest.raises(Fail, match="is not a host name that can be looked up"):
        await run("webhook", {"url": f"http://{host}/"})


class Names(AbstractResolver):
    """A DNS server of an attacker: each look-up of a name gives the next of its answers."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(hostname=host, host=text, port=port, family=socket.AF_INET6 if ":" in text else socket.AF_INET, proto=0, flags=0)
            for text in answer
        ]

    async def close(self) -> None:
        pass


async def test_a_name_that_leads_inside_is_not_dialled(tripwire: Tripwire) -> None:
    for answers in (["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["10.0.0.1", "127.0.0.1", "::1"]):
        async with open_session((), resolver=Names(answers)) as session:
            with pytest.raises(Retry, match="could not connect"):
                await call(webhook_handler(session, ()), {"url": f"http://innocent.example:{tripwire.port}/"})
    assert tripwire.touched == 0


async def test_of_several_answers_only_the_allowed_one_is_dialled(serve: Serve) -> None:
    touched = []

    async def sink(request: web.Request) -> web.Response:
        touched.append(request.transport.get_extra_info("sockname")[0] if request.transport else None)
        return web.Response()

    port = int((await serve(sink)).rsplit(":", 1)[1])
    async with open_session(parse_networks(["127.0.0.1/32"]), resolver=Names(["::1", "10.0.0.1", "127.0.0.1"])) as session:
        await call(webhook_handler(session, ()), {"url": f"http://innocent.example:{port}/"})
    assert touched == ["127.0.0.1"]


async def test_a_name_that_changes_its_answer_is_judged_at_each_dial(tripwire: Tripwire, serve: Serve) -> None:
    async def sink(request: web.Request) -> web.Response:
        response = web.Response()
        response.force_close()
        return response

    port = int((await serve(sink)).rsplit(":", 1)[1])
    async with open_session(parse_networks(["127.0.0.1/32"]), resolver=Names(["127.0.0.1"], ["127.0.0.2"])) as session:
        handler = webhook_handler(session, ())
        assert (await call(handler, {"url": f"http://innocent.example:{port}/"}))["status"] == 200
        with pytest.raises(Retry, match="could not connect"):
            await call(handler, {"url": f"http://innocent.example:{tripwire.port}/"})
    assert tripwire.touched == 0


async def test_refused_blocked_and_unknown_hosts_read_the_same_to_a_tenant_but_not_to_the_operator() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        seen = []
        for answer, allow in (["127.0.0.1"], "127.0.0.0/8"), (["127.0.0.1"], "10.0.0.0/8"), ([], "10.0.0.0/8"):
            async with open_session(parse_networks([allow]), resolver=Names(answer)) as session:
                with structlog.testing.capture_logs() as logs, pytest.raises(Retry) as caught:
                    await call(webhook_handler(session, ()), {"url": f"http://some.example:{closed.getsockname()[1]}/"})
            seen.append((traceback.format_exception(caught.value)[-1], caught.value.after, logs[0]["reason"]))
            assert "Cannot connect" not in "".join(traceback.format_exception(caught.value))
    assert len({(text, after) for text, after, _ in seen}) == 1
    assert [("blocked" in reason) for _, _, reason in seen] == [False, True, False]
