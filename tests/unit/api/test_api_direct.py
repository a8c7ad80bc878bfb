"""Endpoints that are called without FastAPI's layers answer as if they were not."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from sandbox.api.direct import DirectRoutes
from sandbox.api.http import problems
from sandbox.api.http.services import Injected
from sandbox.errors import Conflict
from sandbox.telemetry import context
from sandbox.telemetry.tracing import current_ids

router = APIRouter(prefix="/v1")


@router.post("/things", response_class=Response)
async def take(request: Request, services: Injected) -> Response:
    context.set_user("ada")
    said = await request.body()
    match said:
        case b"refused":
            raise Conflict("There is one already.", hint="Take another.")
        case b"broken":
            raise RuntimeError("a secret that nobody may see")
        case b"gone":
            raise ClientDisconnect
        case _:
            assert current_ids() is None
            return Response(f"{services} {request.app.title} {said.decode()}")


@pytest.fixture
async def http():
    api = FastAPI(title="api")
    problems.install(api)
    api.router.routes.extend(router.routes)
    services: Any = "services"
    transport = httpx.ASGITransport(DirectRoutes(router, api, services, otherwise=api), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_an_endpoint_is_called_with_the_request_and_the_services(http):
    answer = await http.post("/v1/things", content=b"hello", headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.text, answer.headers["x-request-id"]) == (200, "services api hello", "mine")


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [(b"refused", 409, "conflict"), (b"broken", 500, "internal_error"), (b"gone", 499, None)],
)
async def test_errors_are_answered_like_everybody_elses(http, said, status, code):
    answer = await http.post("/v1/things", content=said, headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (status, "mine")
    assert "secret" not in answer.text
    if code is not None:
        assert (answer.json()["code"], answer.json()["request_id"]) == (code, "mine")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/things", 405), ("POST", "/v1/things/x", 404)])
async def test_everything_else_is_fastapis(http, method, path, status):
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, problems.MEDIA_TYPE)


async def test_its_routes_are_in_the_document(http):
    assert list((await http.get("/openapi.json")).json()["paths"]) == ["/v1/things"]
