"""The first page, and the reader of the API's description.

Static files, read once, served with headers under which injected markup cannot run.
"""

from importlib.resources import files

from aiohttp import web
from aiohttp.typedefs import Handler

FILES = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
    "/api/docs": ("docs.html", "text/html"),
    "/api/docs.js": ("docs.js", "text/javascript"),
    "/api/docs.css": ("docs.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes() -> list[web.RouteDef]:
    """Paths and handlers of the page."""
    static = files("taskrunner.api").joinpath("static")
    return [web.get(path, _serve(static.joinpath(name).read_bytes(), kind)) for path, (name, kind) in FILES.items()]


def _serve(body: bytes, kind: str) -> Handler:
    headers = {"Content-Type": f"{kind}; charset=utf-8", **HEADERS}

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=body, headers=headers)

    return serve
