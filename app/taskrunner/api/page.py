"""The dashboard, and the reader of the API's description.

Static files, read and compressed once, served with headers under which injected markup cannot run and no other host is asked.
"""

import gzip
import hashlib
from importlib.resources import files

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

MODULES = (
    "actions",
    "api",
    "chart",
    "create",
    "dialogs",
    "dom",
    "errors",
    "figures",
    "filters",
    "format",
    "icons",
    "keys",
    "live",
    "lots",
    "main",
    "overview",
    "parts",
    "signin",
    "task",
    "tasks",
    "workers",
)
FILES = {
    "/": ("index.html", "text/html"),
    "/style.css": ("style.css", "text/css"),
    "/views.css": ("views.css", "text/css"),
    **{f"/ui/{name}.js": (f"ui/{name}.js", "text/javascript") for name in MODULES},
    "/api/docs": ("docs.html", "text/html"),
    "/api/docs.js": ("docs.js", "text/javascript"),
    "/api/docs.css": ("docs.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for each time, and answered with 304 unless it changed
    "Vary": "Accept-Encoding",
}


def routes() -> list[web.RouteDef]:
    """Paths and handlers of the page."""
    static = files("taskrunner.api").joinpath("static")
    return [web.get(path, _serve(static.joinpath(name).read_bytes(), kind)) for path, (name, kind) in FILES.items()]


def _serve(body: bytes, kind: str) -> Handler:
    small = gzip.compress(body, mtime=0)
    tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
    headers = {"Content-Type": f"{kind}; charset=utf-8", "ETag": tag, **HEADERS}

    async def serve(request: web.Request) -> web.Response:
        if tag in request.headers.get(hdrs.IF_NONE_MATCH, ""):
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            return web.Response(body=small, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=body, headers=headers)

    return serve
