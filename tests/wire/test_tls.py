"""TLS of the gRPC doors: who has no certificate of our CA is refused, on either side, and new files are taken in while all runs (F44)."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from grpclib.client import Channel
from grpclib.exceptions import StreamTerminatedError
from grpclib.health.check import ServiceStatus
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest
from wire.papers import Office

from taskrunner.domain.errors import ConfigurationError
from taskrunner.domain.task import NewTask
from taskrunner.health import troubles
from taskrunner.scheduler import role as scheduler
from taskrunner.settings import Settings
from taskrunner.store.tasks import open_store
from taskrunner.wire.channel import open_channel
from taskrunner.wire.server import serving
from taskrunner.wire.tls import verified_name
from taskrunner.worker import role as worker
from taskrunner.worker.service import WorkerService

REFUSED = (ssl.SSLError, ConnectionError, StreamTerminatedError, TimeoutError)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office.opened(tmp_path / "ours")


@asynccontextmanager
async def door(settings: Settings) -> AsyncIterator[int]:
    """A server as every worker has one, and its port."""
    health = ServiceStatus()
    health.set(True)
    async with serving(WorkerService(), settings, "worker", health=health) as address:
        yield int(address.rpartition(":")[2])


async def ask(port: int, settings: Settings, *, name: str = "localhost") -> None:
    """Call it; raises what keeps that from being answered."""
    async with open_channel("127.0.0.1", port, settings, name=name) as channel:
        await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)


async def test_a_client_with_a_certificate_of_our_ca_is_served(office: Office) -> None:
    async with door(office.settings("server")) as port:
        await ask(port, office.settings("client", "some-worker"))


@pytest.mark.parametrize("who", ["nothing", "foreign", "expired", "plain"])
async def test_any_other_client_is_refused(office: Office, tmp_path: Path, who: str) -> None:
    foreign = Office.opened(tmp_path / "foreign")
    foreign_cert, foreign_key = foreign.issue("client")
    clients = {
        "foreign": Settings(tls_cert=foreign_cert, tls_key=foreign_key, tls_ca=office.folder / "ca.pem"),
        "expired": office.settings("client", expired=True),
        "plain": Settings(),
    }
    async with door(office.settings("server")) as port:
        with pytest.raises(REFUSED):
            if who == "nothing":
                context = ssl.create_default_context(cafile=str(office.folder / "ca.pem"))
                context.set_alpn_protocols(["h2"])
                async with Channel("localhost", port, ssl=context) as channel:
                    await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)
            else:
                await ask(port, clients[who])
        await ask(port, office.settings("good"))  # and nobody else suffers


@pytest.mark.parametrize("who", ["foreign", "expired", "another name", "plain"])
async def test_a_server_that_is_not_ours_is_refused(office: Office, tmp_path: Path, who: str) -> None:
    foreign = Office.opened(tmp_path / "foreign")
    servers = {
        "foreign": foreign.settings("server", ca=False),
        "expired": office.settings("server", expired=True),
        "another name": office.settings("server", "elsewhere.example"),
        "plain": Settings(worker_port=0),
    }
    async with door(servers[who]) as port:
        with pytest.raises(REFUSED):
            await ask(port, office.settings("client"))


async def test_without_a_ca_the_client_needs_no_certificate(office: Office) -> None:
    async with door(office.settings("server", ca=False)) as port:
        context = ssl.create_default_context(cafile=str(office.folder / "ca.pem"))
        context.set_alpn_protocols(["h2"])
        async with Channel("localhost", port, ssl=context) as channel:
            await HealthStub(channel).Check(HealthCheckRequest(), timeout=5)


async def test_the_certificate_is_checked_for_the_name_that_was_called(office: Office) -> None:
    async with door(office.settings("server", "scheduler.example")) as port:
        client = office.settings("client")
        await ask(port, client, name="scheduler.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(port, client, name="scheduler.elsewhere")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        *[(here, "localhost") for here in ("127.0.0.1", "0.0.0.0", "::1", "[::]", "localhost")],
        *[("db.example", "db.example"), ("10.1.2.3", "10.1.2.3"), ("[fd00::1]", "fd00::1")],
    ],
)
def test_this_machine_is_localhost(host: str, name: str) -> None:
    assert verified_name(host) == name


async def test_a_renewed_certificate_is_used_from_the_next_connection_on(office: Office) -> None:
    client = office.settings("client")
    async with door(office.settings("server", "before.example")) as port:
        await ask(port, client, name="before.example")
        cert, key = office.issue("server", "after.example")
        await ask(port, client, name="after.example")
        before = key.read_bytes()
        office.issue("server", "next.example")
        key.write_bytes(before)  # the new certificate is there, and its key is not
        await ask(port, client, name="after.example")
        key.write_text("half written")
        await ask(port, client, name="after.example")
        cert.unlink()
        await ask(port, client, name="after.example")
        office.issue("server", "last.example")
        await ask(port, client, name="last.example")


async def test_files_that_cannot_be_used_are_said_at_the_start(office: Office, tmp_path: Path) -> None:
    good = office.settings("server")
    other = Office.opened(tmp_path / "other").issue("other")[1]
    for wrong in (tmp_path / "nowhere", other, office.folder / "ca.pem"):
        with pytest.raises(ConfigurationError, match="TASKRUNNER_TLS_CERT, _KEY, _CA .* cannot be used: "):
            async with door(good.model_copy(update={"tls_key": wrong})):
                pass


def test_a_key_with_a_password_is_refused_without_asking_for_it(office: Office) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key

    settings = office.settings("server")
    assert settings.tls_key is not None
    key = load_pem_private_key(settings.tls_key.read_bytes(), None)
    settings.tls_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigurationError, match="cannot be used"):
        open_channel("127.0.0.1", 1, settings)


async def test_the_health_command_speaks_tls(office: Office) -> None:
    async with door(office.settings("server")) as port:
        assert await troubles(office.settings("server", roles=("worker",), worker_port=port)) == []
        (found,) = await troubles(Settings(roles=("worker",), worker_port=port))
        assert "is not ready" in found


async def test_a_task_runs_over_mutual_tls(office: Office, dsn: str) -> None:
    """Work and Beat streams alike; a worker of a foreign CA is never welcomed."""
    known = office.settings("scheduler", lease=2, handlers="worker.wire_tasks", grace=1)
    stranger = office.settings("worker", lease=2, handlers="worker.wire_tasks", grace=1, expired=True)
    async with open_store(dsn, known) as store, scheduler.serve(known, store) as room:
        (task,) = await store.create([NewTask(task_type="wire.sleep", payload="3")])  # longer than a lease
        async with worker.serve(stranger, (room.address,)), worker.serve(known, (room.address,)):
            async with asyncio.timeout(20):
                while (found := await store.get(task.id)) is None or found.status != "COMPLETED":
                    await asyncio.sleep(0.05)
        assert found.attempt == 1
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            sessions = await (await connection.execute("select count(*) from sessions")).fetchone()
        assert sessions == (1,)  # the stranger has none
