"""``taskrunner health``, asked of real servers."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from grpclib.health.check import ServiceStatus
from grpclib.health.service import OVERALL, Health
from grpclib.server import Server

from taskrunner.health import schedulers_behind, troubles
from taskrunner.settings import Settings


@contextmanager
def http(status: int, body: bytes) -> Iterator[int]:
    """A server that answers ``/readyz`` so, and its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@asynccontextmanager
async def grpc(*, serving: bool) -> AsyncIterator[int]:
    """A gRPC server with the health service, and its port."""
    status = ServiceStatus()
    status.set(serving)
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    server = Server([Health({OVERALL: [status]})])
    await server.start("127.0.0.1", port)
    yield port
    server.close()
    await server.wait_closed()


async def test_all_are_ready() -> None:
    with http(200, b"{}") as web:
        async with grpc(serving=True) as scheduler, grpc(serving=True) as worker:
            assert await troubles(Settings(http_port=web, scheduler_port=scheduler, worker_port=worker)) == []


async def test_an_address_for_all_is_asked_here() -> None:
    with http(200, b"{}") as web:
        assert await troubles(Settings(roles=("api",), http_host="0.0.0.0", http_port=web)) == []


async def test_who_is_not_ready_is_named_with_the_reason() -> None:
    with http(503, b"the schema is not there yet") as web:
        async with grpc(serving=False) as scheduler:
            found = await troubles(Settings(roles=("api", "scheduler"), http_port=web, scheduler_port=scheduler))
    assert found == [
        f"the api on 127.0.0.1:{web} is not ready: HTTP 503 the schema is not there yet",
        f"the scheduler on 127.0.0.1:{scheduler} is not ready: NOT_SERVING",
    ]


@pytest.mark.parametrize("role", ["api", "scheduler", "worker"])
async def test_nobody_listens(role: str, unused_tcp_port: int) -> None:
    port = {f"{'http' if role == 'api' else role}_port": unused_tcp_port}
    (found,) = await troubles(Settings.model_validate({"roles": role, **port}))
    assert found.startswith(f"the {role} on 127.0.0.1:{unused_tcp_port} is not ready: ")
    assert "refused" in found or "failed" in found


async def test_a_port_that_nobody_knows_is_said() -> None:
    (found,) = await troubles(Settings(roles=("worker",), worker_port=0))
    assert found == "the worker cannot be asked: WORKER_PORT is 0, so only its own process knows the port"


async def test_a_name_of_this_machine_is_one_place(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> None:
    """``localhost`` has two addresses on many machines, and a server listens on one of them."""

    async def both(_: str, port: int, **__: Any) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both)
    async with grpc(serving=True) as port:
        served, silent = f"localhost:{port}", f"localhost:{unused_tcp_port}"
        found = await schedulers_behind([served, silent], Settings())
    assert found[served] is None
    assert [*found] == [served, f"{silent} (127.0.0.2)", f"{silent} (127.0.0.1)"]
    assert None not in [*found.values()][1:]
