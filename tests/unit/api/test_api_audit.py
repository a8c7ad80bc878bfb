"""The audit log: which requests are recorded, as what, and with which outcome."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sandbox.access.audit import AuditLog, Entry
from sandbox.access.identity import set_identity
from sandbox.api.http.audit import Audited, deed_of
from sandbox.app import create_app
from sandbox.domain.caller import Caller, CallerRole
from sandbox.errors import DatabaseUnavailable
from sandbox.settings import Settings
from tests.fakes.world import World

CALLER = Caller("ada", CallerRole.USER, str(uuid4()))
#: The platform's records, which are not part of it.
RECORDS = (
    "agents|alerts|coverage|documents|lesson-applications|lesson-assignments|lessons|memory|memory-namespaces|"
    "refinement-runs|test-results"
)
NOT_RECORDED = re.compile(rf"/v1/(traces|logs)|/api/v1/({RECORDS})(/.*)?")


def with_caller(app: ASGIApp, caller: Caller | None) -> ASGIApp:
    async def identified(scope: Scope, receive: Receive, send: Send) -> None:
        if caller is not None:
            set_identity(scope, caller)
        await app(scope, receive, send)

    return identified


@pytest.fixture
def audit(world: World) -> AuditLog:
    return AuditLog(world.db)


@pytest.fixture
def client(audit: AuditLog) -> Callable[..., httpx.AsyncClient]:
    async def answer(request: Request) -> Response:
        status = int(request.headers.get("x-status", "202"))
        return Response(status_code=status, headers={"Location": "/api/v1/sessions/made"})

    app = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST", "PUT", "DELETE"])])

    def make(caller: Caller | None = CALLER) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(with_caller(Audited(app, audit), caller), client=("192.0.2.7", 1))
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    return make


async def entries(world: World) -> list[dict[str, Any]]:
    async with world.db.read() as conn:
        rows = await conn.execute(
            text("SELECT * FROM audit_log WHERE token_id = :id ORDER BY entry_id"), {"id": UUID(CALLER.token_id)}
        )
        return [dict(row) for row in rows.mappings()]


async def test_a_change_is_recorded_before_its_answer(world: World, client: Callable[..., httpx.AsyncClient]) -> None:
    async with client() as http:
        await http.post("/api/v1/sessions")
        await http.delete("/api/v1/projects/shop", headers={"x-status": "404"})
        await http.put("/api/v1/secrets/api-key", headers={"x-status": "500"})
        await http.get("/api/v1/sessions/made")
    found = await entries(world)
    assert [(each["action"], each["resource"], each["outcome"], each["status"]) for each in found[-3:]] == [
        ("session.create", "made", "succeeded", 202),
        ("project.delete", "shop", "refused", 404),
        ("secret.set", "api-key", "failed", 500),
    ]
    assert {(each["user_id"], each["role"], each["address"]) for each in found} == {("ada", "user", "192.0.2.7")}


async def test_the_use_of_a_sandbox_is_recorded_after_a_while(
    world: World, client: Callable[..., httpx.AsyncClient], audit: AuditLog
) -> None:
    before = len(await entries(world))
    async with client() as http:
        await http.post("/api/v1/sessions/1/exec")
    await audit.close()  # writes what waits
    assert [each["action"] for each in (await entries(world))[before:]] == ["session.exec"]


async def test_unknown_callers_leave_no_entries(world: World, client: Callable[..., httpx.AsyncClient]) -> None:
    before = len(await entries(world))
    async with client(None) as http:
        await http.post("/api/v1/sessions")
    assert len(await entries(world)) == before


async def test_entries_wait_while_the_database_is_away(
    world: World, audit: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(await entries(world))

    def away() -> Iterator[None]:
        raise DatabaseUnavailable("away")

    entry = Entry("ada", "user", UUID(CALLER.token_id), "session.renew", "session", "1", "succeeded", 200, None, None)
    with monkeypatch.context() as patched:
        patched.setattr(world.db, "transaction", away)
        await audit.write(entry)
    assert len(await entries(world)) == before
    await audit.close()
    assert [each["action"] for each in (await entries(world))[before:]] == ["session.renew"]


def test_every_route_that_changes_something_is_recorded() -> None:
    document = create_app(Settings()).api.openapi()
    unsafe = [
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method in ("post", "put", "patch", "delete") and not NOT_RECORDED.fullmatch(path)
    ]
    assert len(unsafe) > 15
    assert [(method, path) for method, path in unsafe if deed_of(method, path) is None] == []
