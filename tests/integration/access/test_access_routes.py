"""The token routes and authentication over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI

from sandbox.access.browsers import cookie_name
from sandbox.access.tokens import TokenService
from sandbox.api.http import problems
from sandbox.api.http.auth import CurrentCaller
from sandbox.api.routes import tokens as token_routes
from sandbox.domain.caller import CallerRole


@dataclass
class Services:
    tokens: TokenService


@pytest.fixture
async def services(database):
    return Services(TokenService(database))


@pytest.fixture
async def http(services):
    app = FastAPI()
    app.state.services = services
    problems.install(app)
    app.include_router(token_routes.router)

    @app.api_route("/me", methods=["GET", "POST"])
    async def me(caller: CurrentCaller) -> str:
        return caller.user_id

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000") as client:
        yield client


@pytest.fixture
async def admin(services):
    return {"Authorization": f"Bearer {(await services.tokens.create('root', CallerRole.ADMIN)).token}"}


@pytest.fixture
async def user_token(services):
    return (await services.tokens.create("ada", CallerRole.USER)).token


async def test_token_is_created_used_and_revoked(http, admin):
    made = await http.post("/api/v1/tokens", json={"user_id": "ada", "role": "user"}, headers=admin)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    token_id, token = made.json()["token_id"], made.json()["token"]
    assert (await http.get("/me", headers={"X-API-Key": token})).json() == "ada"
    listed = await http.get("/api/v1/tokens", headers=admin)
    assert token not in listed.text
    newest = listed.json()["items"][0]
    assert (newest["token_id"], newest["user_id"], newest["role"]) == (token_id, "ada", "user")
    assert newest["created_at"].endswith("Z")
    assert (newest["expires_at"], newest["revoked_at"]) == (None, None)
    for _ in range(2):
        assert (await http.delete(f"/api/v1/tokens/{token_id}", headers=admin)).status_code == 204
    refused = await http.get("/me", headers={"X-API-Key": token})
    assert (refused.status_code, refused.json()["code"]) == (401, "token_unknown")
    assert (await http.delete(f"/api/v1/tokens/{uuid4()}", headers=admin)).json()["code"] == "token_not_found"


async def test_list_continues_after_a_page(http, admin, services):
    for number in range(4):
        await services.tokens.create(f"user{number}", CallerRole.USER)
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await http.get("/api/v1/tokens", params=params, headers=admin)).json()
        seen += [item["user_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["user3", "user2", "user1", "user0", "root"]
    for bad in ("nonsense", "WyIyMDI2LTAxLTAxVDAwOjAwOjAwKzAwOjAwIiwieCJd"):
        refused = await http.get("/api/v1/tokens", params={"cursor": bad}, headers=admin)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": ""},
        {"user_id": "a b"},
        {"user_id": "a\n"},
        {"user_id": "x" * 101},
        {"user_id": "a", "role": "owner"},
        {"user_id": "a", "expires_in_seconds": 0},
        {"user_id": "a", "expires_in_seconds": 10**12},
        {"user_id": "a", "more": 1},
    ],
)
async def test_bad_bodies_are_refused(http, admin, body):
    refused = await http.post("/api/v1/tokens", json=body, headers=admin)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")


async def test_only_admins_manage_tokens(http, user_token):
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", f"/{uuid4()}")):
        url = f"/api/v1/tokens{path}"
        nobody = await http.request(method, url)
        assert (nobody.status_code, nobody.json()["code"]) == (401, "token_missing")
        assert nobody.headers["www-authenticate"].startswith("Bearer")
        user = await http.request(method, url, headers={"X-API-Key": user_token}, json={"user_id": "x"})
        assert (user.status_code, user.json()["code"]) == (403, "admin_required")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": "Basic YTpi"}, "token_missing"),
        ({"Authorization": "Bearer"}, "token_missing"),
        ({"Authorization": "Bearer "}, "token_missing"),
        ({"Authorization": "Bearer nobody"}, "token_unknown"),
        ({"X-API-Key": ""}, "token_missing"),
        ({"X-API-Key": "\xff\xfe"}, "token_unknown"),
        ({"Cookie": f"{cookie_name('http')}=forged"}, "token_missing"),
    ],
)
async def test_unauthenticated_requests_are_refused(http, headers, code):
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    refused = await http.get("/me", headers=encoded)
    assert (refused.status_code, refused.json()["code"]) == (401, code)


async def test_bearer_scheme_is_case_insensitive(http, user_token):
    assert (await http.get("/me", headers={"Authorization": f"bEARER {user_token}"})).json() == "ada"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site"}, 200),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", {"Origin": "http://localhost:8000"}, 200),
        ("POST", {}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8000"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {"Origin": "http://3000-abc.preview.localhost:8000"}, 403),
        ("POST", {"Origin": "http://localhost:9000"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": "http://[bad"}, 403),
    ],
)
async def test_cookie_is_accepted_from_pages_of_this_origin_only(http, services, user_token, method, headers, status):
    cookie = await services.tokens.sign_in(await services.tokens.authenticate(user_token))
    sent = headers | {"Cookie": f"{cookie_name('http')}={cookie}"}
    answer = await http.request(method, "/me", headers=sent)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "cross_origin"
        assert (await http.request(method, "/me", headers=headers | {"X-API-Key": user_token})).status_code == 200
