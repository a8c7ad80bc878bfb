"""`/api/v1/secrets` over HTTP: values go in and do not come out, and each user has only its own."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from sandbox.access.tokens import TokenService
from sandbox.api.http import problems
from sandbox.api.routes import secrets as secret_routes
from sandbox.domain.caller import CallerRole
from sandbox.secrets.service import SecretService
from tests.fakes.secrets import KEYS

VALUE = "a value that stays here"
PATH = "/api/v1/secrets"


@dataclass
class Services:
    tokens: TokenService
    secrets: SecretService


@pytest.fixture
async def services(database):
    return Services(TokenService(database), SecretService(database, KEYS))


@pytest.fixture
async def http(services):
    app = FastAPI()
    app.state.services = services
    problems.install(app)
    app.include_router(secret_routes.router)
    token = (await services.tokens.create("ada", CallerRole.USER)).token
    headers = {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        yield client


async def test_a_secret_is_stored_listed_replaced_and_removed(http, services, database):
    made = await http.put(f"{PATH}/api-key", json={"value": VALUE})
    assert (made.status_code, made.json()["name"], made.json()["project_id"]) == (200, "api-key", None)
    await http.put(f"{PATH}/api-key", params={"project_id": "shop"}, json={"value": "of the shop"})
    listed = await http.get(PATH)
    assert [(each["name"], each["project_id"]) for each in listed.json()["items"]] == [
        ("api-key", None), ("api-key", "shop"),
    ]  # fmt: skip
    assert [each["project_id"] for each in (await http.get(PATH, params={"project_id": "shop"})).json()["items"]] == [
        "shop"
    ]
    assert VALUE not in made.text + listed.text
    async with database.read() as connection:
        assert VALUE.encode() not in b"".join((await connection.execute(text("SELECT sealed FROM secrets"))).scalars())
    assert await services.secrets.values("ada", None, ["api-key"]) == {"api-key": VALUE}
    assert await services.secrets.values("ada", "shop", ["api-key"]) == {"api-key": "of the shop"}
    assert await services.secrets.values("bob", "shop", ["api-key"]) == {}
    await http.put(f"{PATH}/api-key", json={"value": "another"})
    assert await services.secrets.values("ada", None, ["api-key"]) == {"api-key": "another"}
    for path, params in (("api-key", {}), ("api-key", {"project_id": "shop"})):
        assert (await http.delete(f"{PATH}/{path}", params=params)).status_code == 204
    gone = await http.delete(f"{PATH}/api-key")
    assert (gone.status_code, gone.json()["code"]) == (404, "secret_not_found")


async def test_pages_continue_after_a_cursor(http):
    names = [f"key-{number}" for number in range(5)]
    for name in names:
        await http.put(f"{PATH}/{name}", json={"value": VALUE})
    found, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await http.get(PATH, params=params)).json()
        found += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == names


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("with space", {"value": VALUE}),
        ("x" * 101, {"value": VALUE}),
        ("key", {"value": ""}),
        ("key", {"value": "x" * 32_769}),
        ("key", {"value": f"{VALUE}\0"}),
        ("key", {"value": [VALUE]}),
        ("key", {"value": VALUE, "more": VALUE}),
        ("key", {}),
    ],
)
async def test_bad_names_and_values_are_refused_without_showing_them(http, name, body):
    refused = await http.put(f"{PATH}/{name}", json=body)
    assert refused.status_code == 422
    assert VALUE not in refused.text
