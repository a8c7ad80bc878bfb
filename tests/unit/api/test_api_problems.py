"""All errors have one format, over HTTP and as the refusal of a WebSocket."""

from __future__ import annotations

import asyncio
import errno
import json
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, FastAPI, Query, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sandbox.api.http import problems
from sandbox.errors import (
    Conflict,
    DatabaseFull,
    DatabaseUnavailable,
    EngineError,
    InvalidInput,
    Kind,
    NotFound,
    SandboxError,
    StageFailed,
)
from sandbox.statuses import STATUS
from sandbox.telemetry import context


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=5)
    count: int = 0

    @field_validator("name")
    @classmethod
    def _not_bad(cls, value: str) -> str:
        if value == "bad":
            raise ValueError("it is bad")
        return value


def make_app() -> FastAPI:
    app = FastAPI()
    problems.install(app)
    errors: dict[str, Exception] = {
        "full": OSError(errno.ENOSPC, "No space left on device"),
        "database_full": DatabaseFull("PostgreSQL has no disk space left", hint="free some"),
        "file": OSError(errno.EIO, "a secret"),
        "not_found": NotFound("no such thing", hint="look elsewhere", code="thing_not_found"),
        "conflict": Conflict("it is over"),
        "database": DatabaseUnavailable("PostgreSQL is away", hint="wait"),
        "engine": EngineError("the engine is away"),
        "stage": StageFailed("port_not_opened", "nobody listens", "start it"),
        "internal": SandboxError("a secret"),
        "timeout": SandboxError("slow", kind=Kind.TIMEOUT, code="too_slow"),
        "invalid": InvalidInput("bad cursor"),
    }

    @app.get("/errors/{name}")
    async def error(name: str) -> None:
        raise errors[name]

    @app.get("/surrogate")
    async def surrogate() -> Response:
        return JSONResponse({"name": "\udc80"})

    @app.post("/things")
    async def things(
        thing: Annotated[Thing, Body()], page: Annotated[int, Query(le=10)] = 0, wait: bool = False
    ) -> Thing:
        return thing

    @app.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.websocket("/socket/{number}")
    async def socket(websocket: WebSocket, number: int) -> None:
        if number:
            await websocket.accept()
        raise errors["database" if number > 1 else "not_found"]

    return app


@pytest.fixture
async def http():
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with context.bind(request_id="r-1"):
            yield client


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("not_found", 404, "thing_not_found"),
        ("conflict", 409, "conflict"),
        ("database", 503, "database_unavailable"),
        ("engine", 503, "engine_error"),
        ("stage", 409, "port_not_opened"),
        ("internal", 500, "internal_error"),
        ("full", 503, "disk_full"),
        ("database_full", 503, "disk_full"),
        ("file", 500, "internal_error"),
        ("timeout", 504, "too_slow"),
        ("invalid", 422, "invalid_input"),
    ],
)
async def test_sandbox_errors(http, name, status, code):
    response = await http.get(f"/errors/{name}")
    body = response.json()
    assert response.status_code == body["status"] == status
    assert response.headers["content-type"] == "application/problem+json"
    assert body["code"] == code
    assert body["type"] == f"urn:purple8-sandbox:problem:{code}"
    assert set(body) == {"type", "title", "status", "code", "detail", "hint", "request_id"}
    assert body["detail"]
    assert body["request_id"] == "r-1"
    assert ("retry-after" in response.headers) == (status == 503)
    assert "secret" not in response.text


def test_every_kind_has_a_status():
    assert set(STATUS) == set(Kind)


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({"json": {"name": "toolong"}}, ["name"]),
        ({"json": {"name": "bad"}}, ["name"]),
        ({"json": {"count": "x", "other": 1}}, ["name", "count", "other"]),
        ({"json": []}, ["body"]),
        ({"json": {"name": "ok"}, "params": {"page": "11"}}, ["page"]),
        ({}, ["body"]),
    ],
)
async def test_each_field_is_named(http, sent, fields):
    response = await http.post("/things", **sent)
    body = response.json()
    assert (response.status_code, body["code"]) == (422, "invalid_input")
    assert [error["field"] for error in body["errors"]] == fields
    assert all(field in body["detail"] for field in fields)
    assert all(error["message"] and error["in"] in ("body", "query") for error in body["errors"])


async def test_input_is_not_repeated_and_many_errors_are_shortened(http):
    response = await http.post("/things", json={"name": "ok"} | {f"k{n}": "a-secret-value" for n in range(100)})
    body = response.json()
    assert len(body["errors"]) == problems.MAX_FIELD_ERRORS
    assert "and 80 more" in body["detail"]
    assert "a-secret-value" not in response.text
    response = await http.post("/things", json={"name": "ok", "long\r\n" + "x" * 10_000: 1})
    assert len(response.content) < 2000
    assert "\r" not in response.json()["detail"]


@pytest.mark.parametrize("content", [b"{", b"", b'{"name": }', b"[" * 100_000, b"\xff\xfe\xfd"])
async def test_malformed_json(http, content):
    response = await http.post("/things", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) in (
        (400, "malformed_json"),
        (400, "malformed_request"),
        (422, "invalid_input"),
    )
    assert (response.status_code == 422) == (content == b"")


async def test_unknown_routes_and_methods(http):
    response = await http.get("/nowhere/%0d%0a<b>")
    assert (response.status_code, response.json()["code"]) == (404, "route_not_found")
    assert "\r" not in response.json()["detail"]
    response = await http.put("/things")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_a_client_that_disconnects_is_not_logged_as_an_error(caplog):
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/read",
        "headers": [],
        "query_string": b"",
        "http_version": "1.1",
    }
    await make_app()(scope, receive, send)
    assert sent[0]["status"] == 499
    assert not caplog.records


@pytest.mark.parametrize(
    ("path", "extensions", "expected"),
    [
        ("/socket/0", {"websocket.http.response": {}}, {"status": 404}),
        ("/socket/x", {"websocket.http.response": {}}, {"status": 422}),
        ("/socket/0", {}, {"code": 1008}),
        ("/socket/1", {"websocket.http.response": {}}, {"code": 1008}),
        ("/socket/2", {}, {"code": 1013}),
    ],
)
async def test_websockets(path, extensions, expected):
    sent = []
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    incoming.put_nowait({"type": "websocket.connect"})

    async def send(message):
        sent.append(message)

    scope = {"type": "websocket", "path": path, "headers": [], "query_string": b"", "extensions": extensions}
    await make_app()(scope, incoming.get, send)
    answer = next(message for message in sent if message["type"] != "websocket.accept")
    assert {key: answer[key] for key in expected} == expected
    if "status" in expected:
        assert json.loads(sent[-1]["body"])["status"] == expected["status"]


async def test_half_a_character_is_invalid_input(http):
    answer = await http.get("/surrogate")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
