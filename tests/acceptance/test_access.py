"""Authorization: requests without a token, with a wrong one, for another user's resources, and by an admin."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import websockets

from tests.acceptance.api import Api, tar_of
from tests.acceptance.service import Service

OPEN = {"/healthz", "/readyz", "/", "/logout"}


def routes(api: Api) -> list[tuple[str, str]]:
    """Every (method, path) of the OpenAPI document."""
    paths: dict[str, dict[str, Any]] = api.http.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, item in paths.items() for method in item]


def filled(path: str, session_id: str, project_id: str) -> str:
    path = path.replace("{session_id}", session_id).replace("{project_id}", project_id)
    return re.sub(r"\{[^}]+\}", str(uuid.uuid4()), path.replace("{pid}", "1"))


def test_every_route_needs_a_token(admin: Api, service: Service, blank: str) -> None:
    anonymous = Api(service.url, "sbx_" + "x" * 43)
    for method, path in routes(admin):
        if path in OPEN or path.startswith("/console/"):
            continue
        for headers in ({}, {"Authorization": "Bearer sbx_wrong"}, {"X-API-Key": "wrong"}):
            request = anonymous.http.build_request(method, filled(path, blank, "p"))
            request.headers.pop("authorization", None)
            request.headers.update(headers)
            answer = anonymous.http.send(request)
            assert answer.status_code == 401, (method, path, answer.text)
            assert "token_missing" in answer.text or "token_unknown" in answer.text
    anonymous.http.close()


def test_another_users_session_is_not_found_on_any_route(
    admin: Api, user: Api, make_user: Callable[[], Api], service: Service
) -> None:
    user.upload("mine", {"index.html": "<h1>mine</h1>"})
    session, _ = user.launch(project_id="mine")
    session_id, stranger = session["session_id"], make_user()
    bodies: dict[str, Any] = {"exec": {"command": "true"}, "renew": {"seconds": 60}, "signal": {"signal": "TERM"}}
    checked = 0
    for method, path in routes(admin):
        if "{session_id}" not in path and "{project_id}" not in path:
            continue
        if method == "PUT" and path.endswith("{project_id}"):
            continue  # creates a project of the stranger's own
        body = bodies.get(path.rsplit("/", 1)[-1])
        query = {"path": "x"} if "/files" in path else {}
        answer = stranger.http.request(method, filled(path, session_id, "mine"), json=body, params=query)
        assert answer.status_code == 404, (method, path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        checked += 1
    assert checked >= 12

    async def terminal() -> int:
        headers = {"Authorization": f"Bearer {stranger.token}"}
        url = f"ws://127.0.0.1:{service.port}/api/v1/sessions/{session_id}/terminal"
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(url, additional_headers=headers, proxy=None):
                pass
        return refused.value.response.status_code

    assert asyncio.run(terminal()) in (403, 404)
    host = {"Host": f"{session_id}.preview.localhost:{service.port}"}
    assert stranger.http.get("/", headers=host).status_code == 404
    assert user.http.get("/", headers=host).text == "<h1>mine</h1>"
    assert stranger.http.get("/api/v1/sessions").json()["items"] == []
    assert [item["session_id"] for item in user.http.get("/api/v1/sessions").json()["items"]] == [session_id]
    assert admin.get(session_id)["user_id"] == session["user_id"]
    user.end(session_id)
    assert user.http.get("/", headers={**host, "Accept": "application/json"}).status_code == 410


def test_only_an_admin_manages_tokens(admin: Api, user: Api, service: Service) -> None:
    assert user.http.get("/api/v1/tokens").json()["code"] == "admin_required"
    made = admin.http.post(
        "/api/v1/tokens", json={"user_id": "temp", "role": "user", "expires_in_seconds": 3600}
    ).json()
    temp = Api(service.url, made["token"])
    assert temp.http.get("/api/v1/sessions").status_code == 200
    assert made["token"] not in admin.http.get("/api/v1/tokens").text
    assert admin.http.delete(f"/api/v1/tokens/{made['token_id']}").status_code == 204
    assert temp.http.get("/api/v1/sessions").json()["code"] == "token_unknown"
    temp.http.close()


def test_the_request_id_is_returned_and_is_in_errors(user: Api) -> None:
    mine = f"test-{uuid.uuid4().hex}"
    answer = user.http.get(f"/api/v1/sessions/{uuid.uuid4()}", headers={"X-Request-ID": mine})
    assert answer.headers["x-request-id"] == mine
    assert answer.json()["request_id"] == mine
    assert user.http.get("/healthz", headers={"X-Request-ID": "bad id"}).headers["x-request-id"] != "bad id"


def test_two_users_may_have_projects_of_the_same_name(make_user: Callable[[], Api]) -> None:
    first, second = make_user(), make_user()
    for api, text in ((first, "one"), (second, "two")):
        answer = api.put_archive("site", tar_of({"index.html": text}))
        assert answer["files"] == 1
    assert (
        first.http.get("/api/v1/projects/site").json()["digest"]
        != second.http.get("/api/v1/projects/site").json()["digest"]
    )
    assert len(first.http.get("/api/v1/projects").json()["items"]) == 1
