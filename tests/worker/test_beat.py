"""The beat and schedulers that are not there, or hang."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import uuid4

import pytest
from faults.proxy import Proxy, proxy
from worker.peer import Peer
from worker.shop import settings

from taskrunner.worker.beat import Bearers, Beat, Served
from taskrunner.worker.places import Place


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that answers no SYN: a listener whose backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting: list[socket.socket] = []
        try:
            while len(waiting) < 100:
                one = socket.socket()
                waiting.append(one)
                one.settimeout(0.1)
                try:
                    one.connect(listener.getsockname())
                except TimeoutError:
                    break
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for one in waiting:
                one.close()


@asynccontextmanager
async def beating(*addresses: str, beat: float, last: str | None = None) -> AsyncIterator[list[float]]:
    """A beat thread; yields the times of its answers. ``last`` is the scheduler that it was with before."""
    answers: list[float] = []

    def renewed(_: bytes, __: float) -> None:
        answers.append(time.monotonic())

    bearers = Bearers(renewed=renewed, cancel=lambda *_: None, over=lambda _: None, drain=lambda: None)
    one = Beat(addresses, bearers, settings())
    if last is not None:
        host, _, port = last.rpartition(":")
        one._last = Place(host, int(port), host)
    one.serve(Served(uuid4().bytes, beat, 5 * beat))
    try:
        yield answers
    finally:
        await one.close()


async def wait_for(n: int, answers: list[float], within: float) -> None:
    async with asyncio.timeout(within):
        while len(answers) < n:
            await asyncio.sleep(0.005)


async def test_a_scheduler_whose_machine_is_gone_costs_a_beat(peer: Peer) -> None:
    with black_hole() as nowhere:
        # It tries another one than the last first: the one that is gone.
        async with beating(nowhere, peer.address, beat=0.4, last=peer.address) as answers:
            await wait_for(1, answers, within=20)  # the kernel would try for two minutes


@pytest.fixture
async def silent() -> AsyncIterator[Proxy]:
    """A scheduler that hangs: it takes connections, and says nothing."""
    async with proxy(1) as one:
        one.silent = True
        yield one


async def test_after_a_break_the_beat_goes_first_to_whom_it_was_with(peer: Peer, silent: Proxy) -> None:
    """That scheduler saw the break, and gives it half a second."""
    async with proxy(int(peer.address.rpartition(":")[2])) as way:
        async with beating(f"127.0.0.1:{way.port}", f"127.0.0.1:{silent.port}", beat=3.0) as answers:
            await wait_for(1, answers, within=20)
            for _ in range(3):
                way.reset()
                broken, n = time.monotonic(), len(answers)
                await wait_for(n + 1, answers, within=20)
                assert answers[n] - broken < 2
        with suppress(OSError):
            way.reset()
