"""Sends requests for preview hosts to the preview proxy, everything else to the service itself."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.domain.hosts import host_name, is_below
from sandbox.preview.headers import values


class HostRouter:
    """An ASGI application. Any name below the preview domain is the proxy's, well-formed or not: a page of a sandbox
    must never find the service's own API, cookie and all, on its host. Lifespan is the main application's."""

    def __init__(self, main_app: ASGIApp, preview_app: ASGIApp, domain: str) -> None:
        self._main = main_app
        self._preview = preview_app
        self._domain = domain.lower().strip(".")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._main
        if scope["type"] in ("http", "websocket"):
            names = map(host_name, values(scope["headers"], b"host"))
            if any(name and is_below(name, self._domain) for name in names):
                app = self._preview
        await app(scope, receive, send)
