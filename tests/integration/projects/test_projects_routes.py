"""`/api/v1/projects` over HTTP, on a real database."""

import io
import zipfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from sandbox.access.tokens import TokenService
from sandbox.api.http import problems
from sandbox.api.routes import projects
from sandbox.db.connection import Database
from sandbox.domain.caller import CallerRole
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.projects.service import ProjectService
from sandbox.settings import Settings
from sandbox.workers import Workers

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
PROJECTS = "/api/v1/projects"
ZIP = {"Content-Type": "application/zip"}


def zipped(**files: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return out.getvalue()


@pytest.fixture
async def clients(database: Database) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """An HTTP client for each of two users."""
    settings = Settings(max_upload_mb=1)
    tokens = TokenService(database)
    app = FastAPI()
    problems.install(app)
    app.include_router(projects.router)
    app.state.services = SimpleNamespace(
        settings=settings, tokens=tokens, projects=ProjectService(database, RuntimeCatalog(), settings, Workers())
    )
    async with AsyncExitStack() as stack:
        made = {}
        for user in ("ann", "bob"):
            token = (await tokens.create(user, CallerRole.USER)).token
            made[user] = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app), base_url="http://sandbox", headers={"X-API-Key": token}
                )
            )
        yield made


@pytest.fixture
def http(clients: dict[str, httpx.AsyncClient]) -> httpx.AsyncClient:
    """Ann's client."""
    return clients["ann"]


async def test_upload_replace_list_delete(http: httpx.AsyncClient) -> None:
    made = await http.put(f"{PROJECTS}/shop", content=zipped(main_py=FASTAPI), headers=ZIP)
    assert made.status_code == 201, made.text
    body = made.json()
    assert body["project_id"] == "shop"
    assert (body["files"], body["size_bytes"]) == (1, len(FASTAPI))
    assert body["plan"]["backend"]["start"] == "uvicorn main:app --host 0.0.0.0 --port 8000 --reload"
    assert {"runtime", "root", "install", "start", "port", "health"} <= body["plan"]["backend"].keys()
    again = await http.put(f"{PROJECTS}/shop", content=zipped(main_py=FASTAPI), headers=ZIP)
    assert (again.status_code, again.json()) == (200, body)
    await http.put(f"{PROJECTS}/page", content=zipped(index_html="x"), headers=ZIP)
    first = (await http.get(PROJECTS, params={"limit": 1})).json()
    second = (await http.get(PROJECTS, params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert [item["project_id"] for item in (*first["items"], *second["items"])] == ["page", "shop"]
    assert (await http.get(f"{PROJECTS}/shop")).json() == body
    assert (await http.delete(f"{PROJECTS}/shop")).status_code == 204
    gone = await http.get(f"{PROJECTS}/shop")
    assert (gone.status_code, gone.json()["code"]) == (404, "project_not_found")


async def test_another_users_project_is_404(clients: dict[str, httpx.AsyncClient]) -> None:
    http, bob = clients["ann"], clients["bob"]
    await http.put(f"{PROJECTS}/shop", content=zipped(main_py=FASTAPI), headers=ZIP)
    assert (await bob.get(f"{PROJECTS}/shop")).status_code == 404
    assert (await bob.delete(f"{PROJECTS}/shop")).status_code == 404
    assert (await bob.get(PROJECTS)).json() == {"items": [], "next_cursor": None}
    assert (await http.get(f"{PROJECTS}/shop")).status_code == 200


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (zipped(main_py=FASTAPI), {}, 415, "archive_unsupported"),
        (zipped(main_py=FASTAPI), {"Content-Type": "application/json"}, 415, "archive_unsupported"),
        (b"garbage", ZIP, 422, "archive_unreadable"),
        (b"", ZIP, 422, "archive_unreadable"),
        (b"x" * (1024 * 1024 + 1), ZIP, 413, "upload_too_large"),
    ],
)
async def test_what_is_refused(
    http: httpx.AsyncClient, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await http.put(f"{PROJECTS}/shop", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await http.get(PROJECTS)).json()["items"] == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (zipped(README_md="?"), "plan_undetected"),
        (zipped(main_py=FASTAPI, sandbox_toml="[backend]\nport = 'x'"), "plan_invalid"),
    ],
)
async def test_an_upload_without_a_known_plan_is_stored_with_the_problem(
    http: httpx.AsyncClient, content: bytes, code: str
) -> None:
    answer = await http.put(f"{PROJECTS}/shop", content=content, headers=ZIP)
    assert answer.status_code == 201, answer.text
    project = answer.json()
    assert (project["plan"], project["plan_problem"]["code"]) == (None, code)
    assert (await http.get(PROJECTS)).json()["items"] == [project]


async def test_a_body_of_unknown_length_is_limited(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 16
            yield bytes(1 << 16)

    answer = await http.put(f"{PROJECTS}/shop", content=endless(), headers=ZIP)
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert sent < 4 << 20
