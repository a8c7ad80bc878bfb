"""The short way to routes that are asked all day by many.

FastAPI's way to an endpoint (its middlewares, the search through all routes, dependencies, models) takes longer than
what is done with a body of records in this process, and whoever else asks waits meanwhile. An endpoint that needs none
of it can be called as it is. Its routes are FastAPI's all the same: documented there, and their other methods refused.
"""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.api.http.middleware import RequestMiddleware
from sandbox.api.http.services import Services


class DirectRoutes:
    """An ASGI application before `otherwise`: calls the endpoints of `router`, `async (request, services) -> Response`,
    and hands everything else on."""

    def __init__(self, router: APIRouter, api: FastAPI, services: Services, *, otherwise: ASGIApp) -> None:
        self._api = api
        self._services = services
        self._otherwise = otherwise
        self._routes = {
            (method, route.path): route
            for route in router.routes
            if isinstance(route, APIRoute)
            for method in route.methods or ()
        }
        # What nobody expects goes up: whoever is above answers it.
        handlers = {kind: handler for kind, handler in api.exception_handlers.items() if kind is not Exception}
        self._answering = RequestMiddleware(ExceptionMiddleware(self._answer, handlers), tracing=None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if route is None:
            await self._otherwise(scope, receive, send)
            return
        scope["app"], scope["route"] = self._api, route
        await self._answering(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await scope["route"].endpoint(Request(scope, receive), self._services)
        await cast(Response, response)(scope, receive, send)
