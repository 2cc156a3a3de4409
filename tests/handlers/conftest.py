"""The built-in handlers over real servers on loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from handlers.sinks import Listen, RawHandler, Run, Serve, WebHandler, call

from taskrunner.handlers.builtin import builtin_handlers
from taskrunner.sdk import Context, Handler
from taskrunner.settings import Settings


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """``run("webhook", payload, ctx, mail_dir=…, **settings)``: one task by the built-in handlers, with loopback allowed."""
    async with AsyncExitStack() as stack:
        opened: dict[str, dict[str, Handler]] = {}

        async def run_one(kind: str, payload: Any, ctx: Context | None = None, *, mail_dir: Any = None, **settings: Any) -> dict[str, Any]:
            key = repr((mail_dir, settings))
            if key not in opened:
                chosen = Settings(**{"webhook_allow": "127.0.0.0/8", **settings})
                opened[key] = await stack.enter_async_context(builtin_handlers(chosen, mail_dir=mail_dir))
            return await call(opened[key][kind], payload, ctx)

        yield run_one


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts an HTTP server whose every path is the given handler; returns its URL without a slash at the end."""
    async with AsyncExitStack() as stack:

        async def start(handler: WebHandler) -> str:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return f"http://127.0.0.1:{runner.addresses[0][1]}"

        yield start


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Starts a raw TCP server; returns its port."""
    async with AsyncExitStack() as stack:

        async def start(handler: RawHandler) -> int:
            async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    await handler(reader, writer)
                finally:
                    writer.close()

            server = await asyncio.start_server(closing, "127.0.0.1", 0)
            await stack.enter_async_context(server)
            port: int = server.sockets[0].getsockname()[1]
            return port

        yield start
