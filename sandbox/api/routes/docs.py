"""`/docs`: the documentation of the API, for browsers that are signed in. All its files are served from here."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from sandbox.api.http.auth import require_caller
from sandbox.errors import Kind, NotFound, SandboxError

router = APIRouter(include_in_schema=False)

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>purple8-sandbox API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = b'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true});\n'
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css"}


@router.get("/docs")
async def page(request: Request) -> Response:
    """The documentation; the sign-in form for a browser that is not signed in."""
    try:
        await require_caller(request)
    except SandboxError as error:
        if error.kind is not Kind.UNAUTHENTICATED:
            raise
        return RedirectResponse("/", 303, headers={"Cache-Control": "no-store"})
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": _POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(_PAGE, headers=headers)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A script or the style of the page."""
    found = _ASSETS.get(name)
    if found is None:
        raise NotFound("the documentation has no such file")
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(found, media_type=_MEDIA_TYPES[name[name.rindex(".") :]], headers=headers)


def _assets() -> dict[str, bytes]:
    """Swagger UI as its package has it."""
    resources = files("fastapi_swagger") / "resources"
    names = ("swagger-ui-bundle.js", "swagger-ui.css")
    return {name: (resources / name).read_bytes() for name in names} | {"start.js": _START}


_ASSETS: Final = _assets()
