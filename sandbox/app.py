"""The ASGI application: routes requests by host name. Its lifespan starts and stops the parts of the service."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox import __version__
from sandbox.api.http import problems
from sandbox.api.http.admission import Admission
from sandbox.api.http.audit import Audited
from sandbox.api.http.middleware import RequestMiddleware
from sandbox.api.http.openapi import DESCRIPTION, DocumentedApi
from sandbox.api.routers import routers
from sandbox.api.routes import otlp
from sandbox.composition import Running, running
from sandbox.console import routes as console
from sandbox.edge.configuration import edge_configuration
from sandbox.edge.supervisor import EdgeSupervisor, edge_of
from sandbox.preview.router import HostRouter
from sandbox.settings import Settings


class Application:
    """The service as one ASGI application.

    FastAPI handles the lifespan, which starts and stops the parts. Requests are routed by host name to a preview or to
    the API; each gets a request id and a span.
    """

    def __init__(self, settings: Settings, *, edge: bool) -> None:
        self._settings = settings
        self._edge = edge
        self.api = DocumentedApi(
            title="purple8-sandbox",
            version=__version__,
            description=DESCRIPTION,
            lifespan=self._lifespan,
            docs_url=None,
            redoc_url=None,
        )
        problems.install(self.api)
        for router in (*routers(), console.router):
            self.api.include_router(router)
        self._requests: ASGIApp = self.api

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        async with running(self._settings, edge=self._edge) as parts, self._edge_in_front():
            app.state.services = parts.services
            self._requests = self._route_by_host(app, parts)
            # Exclude the objects built so far from garbage collection: scanning them delays requests by some 50 ms.
            gc.collect()
            gc.freeze()
            yield
            gc.unfreeze()

    @asynccontextmanager
    async def _edge_in_front(self) -> AsyncIterator[None]:
        if not self._edge:
            yield
            return
        supervisor = EdgeSupervisor(edge_of(self._settings), edge_configuration(self._settings))
        await supervisor.start()
        try:
            yield
        finally:
            await supervisor.close()

    def _route_by_host(self, api: FastAPI, parts: Running) -> ASGIApp:
        services = parts.services
        admitted = Admission(
            Audited(api, services.audit), self._settings, services.tokens, services.signer, parts.connections
        )
        service = RequestMiddleware(admitted, parts.tracing, untraced=otlp.PATHS)
        previews = RequestMiddleware(parts.previews, parts.tracing, recorded=False)
        return HostRouter(service, previews, self._settings.preview_domain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.api if scope["type"] == "lifespan" else self._requests)(scope, receive, send)


def create_app(settings: Settings, *, edge: bool = False) -> Application:
    """The service. Its parts are started by the application's lifespan, with `edge` the proxy in front too."""
    return Application(settings, edge=edge)
