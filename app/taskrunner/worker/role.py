"""Role 3: a worker in a thread and loop of its own, so that a handler that blocks stops neither the other roles nor signal handling."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from taskrunner.kit.loops import start
from taskrunner.settings import Settings
from taskrunner.worker.workshop import Outside, Shop, work

log = structlog.get_logger()

MARGIN = 2.0  # seconds beyond the grace that draining may take
JOIN = 0.5  # seconds that the thread has to end when all is drained


class Room:
    """The worker's thread, seen from the process's loop. ``failed`` is done with an exception when the worker has died."""

    def __init__(self, settings: Settings, addresses: tuple[str, ...], mail_dir: Path | None) -> None:
        self._settings = settings
        self._addresses = addresses
        self._mail_dir = mail_dir
        self._home = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="worker", daemon=True)
        self._ready: asyncio.Future[tuple[str, Shop]] = self._home.create_future()
        self._stopping = False
        self.failed: asyncio.Future[None] = self._home.create_future()
        self.address = ""
        self._shop: Shop | None = None

    async def open(self) -> None:
        """Start the thread and wait until the worker is ready. Raises what kept it from that, as it is."""
        self._thread.start()
        try:
            self.address, self._shop = await self._ready
        except BaseException:
            await self.close()
            raise

    def collector(self) -> Any:
        """What the worker does, as metrics, which are read on this thread. Once it is open."""
        assert self._shop is not None
        return self._shop.collector()

    async def watch(self) -> None:
        """Raise when the worker dies."""
        await asyncio.shield(self.failed)
        if not self._stopping:
            raise RuntimeError("the worker ended by itself")

    async def close(self) -> None:
        """Drain. A thread that does not end is left behind: it is a daemon, and its tasks are given back or run again after the lease."""
        self._stopping = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the worker is dead already
                self._loop.call_soon_threadsafe(self._stop.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.grace + MARGIN):
                await asyncio.wait([self.failed])
        await asyncio.to_thread(self._thread.join, JOIN)
        if self._thread.is_alive():
            log.warning("the worker's thread did not end in time and is left behind: a handler may still run")

    # ── on the worker's thread ──────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                self._loop = runner.get_loop()
                if self._stopping:
                    self._stop.set()
                _run(self._loop, work(self._settings, self._addresses, self._mail_dir, self._outside()))
        except BaseException as error:  # noqa: BLE001 — whatever it is, the process is to know
            self._tell(self._fail, error)
        self._tell(_resolve, self.failed, None)

    def _outside(self) -> Outside:
        return Outside(
            ready=lambda address, shop: self._tell(_resolve, self._ready, (address, shop)),
            stop=self._stop,
            done=lambda: self._tell(_resolve, self.failed, None),
        )

    def _fail(self, error: BaseException) -> None:
        future = self.failed if self._ready.done() else self._ready
        if not future.done():
            future.set_exception(error if isinstance(error, Exception) else RuntimeError(f"the worker died: {error!r}"))

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the process's loop is closed: nobody is left to be told
            self._home.call_soon_threadsafe(callback, *args)


@asynccontextmanager
async def serve(settings: Settings, addresses: tuple[str, ...], mail_dir: Path | None = None) -> AsyncIterator[Room]:
    """A worker for the schedulers at ``addresses``. Entering: handlers are loaded and its server listens; leaving: it is drained, within
    ``settings.grace`` and a little more. A scheduler need not be there yet. ``mail_dir`` is where mail goes when no SMTP server is set.

    Raises ConfigurationError. A worker that dies later cancels the body and raises in an ExceptionGroup.
    """
    room = Room(settings, addresses, mail_dir)
    await room.open()
    async with asyncio.TaskGroup() as group:
        (watching,) = start(group, {"watch the worker": room.watch()})
        try:
            yield room
        finally:
            await room.close()
            if not room.failed.done():
                watching.cancel()


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _run(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` to its end. A task that some handler has started and that calls sys.exit() stops the loop, but not us."""
    task = loop.create_task(main)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            log.error("a task that a handler has started wanted to end the process; it ended only itself", error=repr(error))  # noqa: TRY400 — said once


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
