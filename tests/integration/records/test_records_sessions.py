"""OTLP exports with the token of a session: ownership, limits, and what the token does not allow."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from sandbox.access.signing import EXPORTS_TOKEN_PREFIX
from sandbox.domain.caller import Caller, CallerRole
from sandbox.settings import Settings
from tests.fakes.secrets import signer as signer_of

MINUTE = 1_000


@pytest.fixture
def settings() -> Settings:
    return Settings(session_records_per_minute=MINUTE)


async def new_session(database, user: str) -> UUID:
    statement = text("""
        INSERT INTO sandbox_sessions (session_id, user_id, runtime_type, run_id, pipeline_run_id, status)
        VALUES (:session_id, :user_id, 'python312', gen_random_uuid(), 'run', 'running')
    """)
    session_id = uuid4()
    async with database.transaction() as connection:
        await connection.execute(statement, {"session_id": session_id, "user_id": user})
    return session_id


@pytest.fixture
async def session_id(database) -> UUID:
    return await new_session(database, "ada")


@pytest.fixture
async def app_in_session(app, services, session_id) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the headers of an exporter in a session of Ada."""
    headers = {"Authorization": f"Bearer {services.signer.sign_exports(session_id, 'ada')}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers, timeout=30) as client:
        yield client


def attribute(key: str, value: str) -> dict[str, object]:
    return {"key": key, "value": {"stringValue": value}}


def logs(count: int, *claims: dict[str, object]) -> dict[str, object]:
    record = {"body": {"stringValue": "hello"}, "attributes": list(claims)}
    return {
        "resourceLogs": [{"resource": {"attributes": list(claims)}, "scopeLogs": [{"logRecords": [record] * count}]}]
    }


def spans(*claims: dict[str, object]) -> dict[str, object]:
    span = {
        "traceId": os.urandom(16).hex(),
        "spanId": os.urandom(8).hex(),
        "name": "GET /",
        "startTimeUnixNano": str(time.time_ns()),
        "endTimeUnixNano": str(time.time_ns()),
        "attributes": list(claims),
    }
    return {"resourceSpans": [{"resource": {"attributes": list(claims)}, "scopeSpans": [{"spans": [span]}]}]}


async def test_records_belong_to_the_session_and_its_user_whatever_they_claim(app_in_session, ada, bob, session_id):
    others = str(uuid4())
    claims = [attribute("session_id", others), attribute("session.id", others)]
    claims += [attribute("user.id", "bob"), attribute("user_id", "bob"), attribute("enduser.id", "bob")]
    assert (await app_in_session.post("/v1/logs", json=logs(1, *claims))).status_code == 200
    body: dict[str, Any] = spans(*claims)
    assert (await app_in_session.post("/v1/traces", json=body)).status_code == 200

    (line,) = (await ada.get("/api/v1/logs")).json()["items"]
    assert (line["user_id"], line["metadata"]["session_id"]) == ("ada", str(session_id))
    trace_id = body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"]
    (span,) = (await ada.get(f"/api/v1/traces/{trace_id}")).json()["spans"]
    assert (span["tags"]["user_id"], span["tags"]["session_id"]) == ("ada", str(session_id))
    assert others not in json.dumps([line, span])
    assert (await bob.get("/api/v1/logs")).json()["items"] == []
    assert (await bob.get(f"/api/v1/traces/{trace_id}")).status_code == 404


async def test_the_token_is_refused_by_all_other_routes(app, app_in_session):
    """Tries every route in the OpenAPI document."""
    tried = 0
    for path, methods in app.openapi()["paths"].items():
        for method in methods:
            if (method, path) in (("post", "/v1/traces"), ("post", "/v1/logs")):
                continue
            route = path.replace("{trace_id}", "0" * 32)
            while "{" in route:
                route = route[: route.index("{")] + "1" + route[route.index("}") + 1 :]
            for headers in ({}, {"Authorization": "", "X-API-Key": app_in_session.headers["authorization"][7:]}):
                answer = await app_in_session.request(method, route, json={}, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "token_unknown"), (method, path)
            tried += 1
    assert tried > 30


@pytest.mark.parametrize("how", ["of another deployment", "cut", "of another purpose", "of another session's user"])
async def test_an_invalid_token_is_refused(services, app_in_session, session_id, how):
    good = services.signer.sign_exports(session_id, "ada")
    other = services.signer.sign_exports(session_id, "bob")
    ada = Caller("ada", CallerRole.USER, str(uuid4()))
    token = {
        "of another deployment": signer_of(b"x").sign_exports(session_id, "ada"),
        "cut": good[:-2],
        "of another purpose": EXPORTS_TOKEN_PREFIX + services.signer.sign_preview(session_id, ada.signed_in_by),
        "of another session's user": good.partition(".")[0] + "." + other.partition(".")[2],
    }[how]
    refused = await app_in_session.post("/v1/logs", json=logs(1), headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 401
    assert "signature_refused" in refused.json()["message"]
    assert (await app_in_session.post("/v1/logs", json=logs(1))).status_code == 200


@pytest.mark.parametrize("change", ["work = 'terminate'", "status = 'terminated', work = NULL"])
async def test_the_token_of_an_ended_session_is_refused(app_in_session, database, session_id, change):
    assert (await app_in_session.post("/v1/logs", json=logs(1))).status_code == 200
    async with database.transaction() as connection:
        await connection.execute(
            text(f"UPDATE sandbox_sessions SET {change} WHERE session_id = :id"), {"id": session_id}
        )
    refused = await app_in_session.post("/v1/logs", json=logs(1))
    assert refused.status_code == 401
    assert "is over" in refused.json()["message"]


async def test_the_token_of_a_session_that_never_existed_is_refused(app_in_session, services):
    headers = {"Authorization": f"Bearer {services.signer.sign_exports(uuid4(), 'ada')}"}
    assert (await app_in_session.post("/v1/logs", json=logs(1), headers=headers)).status_code == 401


async def test_a_batch_larger_than_a_minutes_records_is_too_large(app_in_session):
    large = await app_in_session.post("/v1/logs", json=logs(MINUTE + 1))
    assert (large.status_code, "too_many_records_at_once" in large.json()["message"]) == (413, True)
    assert (await app_in_session.post("/v1/logs", json=logs(1))).status_code == 200


async def test_a_session_is_limited_without_affecting_others(app_in_session, app, services, admin, database, ada):
    """Requests over the limit are refused as a whole and counted; other sessions and users are not limited."""
    for _ in range(4):
        assert (await app_in_session.post("/v1/logs", json=logs(MINUTE // 4))).status_code == 200
    for answer in await asyncio.gather(*[app_in_session.post("/v1/logs", json=logs(MINUTE // 4)) for _ in range(6)]):
        assert answer.status_code == 429
        assert "too_many_records" in answer.json()["message"]
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    # Refused before it is decoded: the body is not OTLP.
    early = await app_in_session.post("/v1/traces", content=b"{", headers={"Content-Type": "application/json"})
    assert early.status_code == 429

    another = services.signer.sign_exports(await new_session(database, "ada"), "ada")
    headers = {"Authorization": f"Bearer {another}"}
    assert (await app_in_session.post("/v1/logs", json=logs(10), headers=headers)).status_code == 200
    assert (await ada.post("/v1/logs", json=logs(MINUTE * 2))).status_code == 200
    async with database.transaction() as connection:
        written = (await connection.execute(text("SELECT count(*) FROM logs"))).scalar_one()
    assert written == MINUTE + 10 + MINUTE * 2
    metrics = (await admin.get("/metrics")).text
    assert 'sandbox_session_exports_total{kind="logs",status="429"}' in metrics
    assert 'sandbox_session_exports_total{kind="spans",status="429"}' in metrics
