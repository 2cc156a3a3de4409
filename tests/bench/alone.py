"""aiohttp alone, which answers a constant to everything: ``python alone.py PORT``. What no API on it can be faster than, here and now."""

import asyncio
import sys

import uvloop
from aiohttp import web

ANSWER = b'{"id":"0190a2b4-0000-7000-8000-000000000000","task_type":"noop","status":"PENDING","payload":{"i":1,"t":0,"p":"%s"}}' % (
    b"x" * 455
)


async def constant(request: web.Request) -> web.Response:
    """The same for everybody, as long as the document of a task."""
    await request.read()
    return web.Response(body=ANSWER, status=201, content_type="application/json")


async def main(port: int) -> None:
    """Serve until killed."""
    application = web.Application()
    application.add_routes([web.route("*", "/{rest:.*}", constant)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
