"""Projects of common frameworks, made by their own generators where they have one, are launched and previewed.

The generators run in blank sandboxes, so that the machine needs neither Node.js nor Django. All launches are started
at once; then each test waits for its own.
"""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, sync_playwright
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.acceptance.api import Api, tar_of, tar_of_folder
from tests.acceptance.browsers import FLAGS, expect_text, program
from tests.acceptance.previews import page, preview


@dataclass(frozen=True)
class Generator:
    """A command that makes projects in folders of the workspace of a blank sandbox."""

    runtime: str
    command: str


@dataclass(frozen=True)
class Project:
    """A project: the source of its files, the plan that is expected, and what its preview answers."""

    framework: str
    runtime: str
    port: int
    install: str | None
    #: Maps paths of the preview to a text that the answer contains.
    answers: dict[str, str]
    files: dict[str, str | bytes] = field(default_factory=dict)
    generator: str | None = None
    #: A text that a browser shows once the scripts of the page have run.
    shows: str | None = None


VITE = "npm create --yes vite@7.1.3"
GENERATORS = {
    "django": Generator("python312", "mkdir django && uvx --from django==5.2.8 django-admin startproject site1 django"),
    "vite": Generator(
        "node20",
        f"{VITE} vite-vanilla -- --template vanilla && {VITE} vite-react -- --template react"
        " && cp -r vite-vanilla vite-pnpm && cd vite-pnpm && pnpm install --lockfile-only",
    ),
    "next": Generator(
        "node20",
        "npx --yes create-next-app@15.5.4 next --js --app --no-tailwind --no-eslint --no-src-dir --no-turbopack"
        " --import-alias '@/*' --use-npm --skip-install --disable-git",
    ),
    "express": Generator(
        "node20",
        "npx --yes express-generator@4.16.1 --view=pug express && cp -r express express-yarn"
        " && cd express-yarn && yarn install && rm -r node_modules",
    ),
}

FASTAPI = """
from fastapi import FastAPI

app = FastAPI(title="Stock")


@app.get("/items/{number}")
def item(number: int) -> dict[str, int]:
    return {"number": number, "double": number * 2}
"""
FLASK = """
from flask import Flask, request

app = Flask(__name__)


@app.route("/")
def hello():
    return f"<h1>Hello, {request.args.get('name', 'you')}</h1>"
"""
NODE = """
const http = require("node:http");

http.createServer((request, response) => {
  response.setHeader("Content-Type", "text/plain");
  response.end(`plain Node ${process.version} got ${request.method} ${request.url}`);
}).listen(process.env.PORT || 4567);
"""

PROJECTS = {
    "django": Project(
        "django",
        "python312",
        8000,
        "uv venv --allow-existing --python 3.12 && uv pip install django",
        {"/": "The install worked successfully! Congratulations!", "/admin/login/": "Django administration"},
        generator="django",
    ),
    "fastapi": Project(
        "fastapi",
        "python312",
        8000,
        "uv venv --allow-existing --python 3.12 && uv pip install -r requirements.txt 'uvicorn[standard]'",
        {"/items/21": '{"number":21,"double":42}', "/docs": "Stock - Swagger UI"},
        files={"main.py": FASTAPI, "requirements.txt": "fastapi==0.115.6\n"},
    ),
    "flask": Project(
        "flask",
        "python312",
        5000,
        "uv venv --allow-existing --python 3.12 && uv pip install -r requirements.txt",
        {"/?name=Ada": "<h1>Hello, Ada</h1>"},
        files={"app.py": FLASK, "requirements.txt": "flask==3.1.0\n"},
    ),
    "streamlit": Project(
        "streamlit",
        "python312",
        8501,
        "uv venv --allow-existing --python 3.12 && uv pip install streamlit",
        {"/": "<title>Streamlit</title>", "/_stcore/health": "ok"},
        shows="6 by 7 is 42",
        files={"streamlit_app.py": 'import streamlit as st\n\nst.title("Figures")\nst.write(f"6 by 7 is {6 * 7}")\n'},
    ),
    "vite-vanilla": Project(
        "vite",
        "node20",
        5173,
        "npm install",
        {"/": "/@vite/client", "/src/main.js": "setupCounter"},
        shows="Hello Vite!",
        generator="vite",
    ),
    "vite-react": Project(
        "vite",
        "node20",
        5173,
        "npm install",
        {"/": "/src/main.jsx", "/src/App.jsx": "Vite + React"},
        shows="Vite + React",
        generator="vite",
    ),
    "vite-pnpm": Project(
        "vite",
        "node20",
        5173,
        "pnpm install --frozen-lockfile",
        {"/": "/@vite/client", "/src/counter.js": "count is"},
        generator="vite",
    ),
    "next": Project(
        "next",
        "node20",
        3000,
        "npm install",
        {"/": "Get started by editing"},
        generator="next",
        shows="Get started by editing",
    ),
    "express": Project(
        "express",
        "node20",
        3000,
        "npm install",
        {"/": "Welcome to Express", "/users": "respond with a resource"},
        generator="express",
    ),
    "express-yarn": Project(
        "express",
        "node20",
        3000,
        "yarn install --frozen-lockfile",
        {"/": "Welcome to Express"},
        generator="express",
    ),
    "node": Project(
        "node", "node20", 4567, None, {"/some/path?q=1": "got GET /some/path?q=1"}, files={"server.js": NODE}
    ),
    "static": Project(
        "static",
        "python312",
        8000,
        None,
        {"/": "<h1>Just a page</h1>", "/css/main.css": "rebeccapurple"},
        files={"index.html": "<!doctype html><h1>Just a page</h1>", "css/main.css": "h1 { color: rebeccapurple }"},
    ),
}
#: Like a generated full-stack project: the server of the front end forwards `/api` to the back end on localhost.
PROXIED = "proxied"
PROXIED_FILES = {
    "frontend/vite.config.js": """
export default {
  server: {
    proxy: {
      '/api': 'http://localhost:8000',
      '/ws': { target: 'ws://localhost:8000', ws: true },
    },
  },
}
""",
    "backend/requirements.txt": "fastapi==0.115.6\n",
    "backend/main.py": """
from fastapi import FastAPI, WebSocket

app = FastAPI()


@app.get("/api/hello")
def hello() -> dict[str, str]:
    return {"message": "Hello from localhost!"}


@app.websocket("/ws")
async def shout(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text((await socket.receive_text()).upper())
""",
}
FULLSTACK = "fullstack"
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / FULLSTACK


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def launched(admin: Api, request: pytest.FixtureRequest) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Upload and launch all selected projects; return a function that maps a name to the plan and the session id."""
    selected = [item for item in request.session.items if item.path == request.path]
    names = sorted({item.callspec.params["name"] for item in selected if hasattr(item, "callspec")})
    plans, sessions = {}, {}

    def launch(name: str, archive: bytes) -> None:
        plans[name] = admin.put_archive(f"made-{name}", archive)["plan"]
        sessions[name] = admin.create(project_id=f"made-{name}")["session_id"]

    for name in names:
        if name == FULLSTACK:
            launch(name, tar_of_folder(EXAMPLE))
        elif name in PROJECTS and PROJECTS[name].generator is None:
            launch(name, tar_of(PROJECTS[name].files))
    requested = {generator for name in names if name in PROJECTS and (generator := PROJECTS[name].generator)}
    made = _generate(admin, requested | ({"vite"} if PROXIED in names else set()))
    if PROXIED in names:
        made[PROXIED] = tar_of(_files(made["vite-vanilla"], "frontend") | PROXIED_FILES)
    for name, archive in made.items():
        if name in names:
            launch(name, archive)
    yield lambda name: {"plan": plans[name], "session_id": sessions[name]}
    for session_id in sessions.values():
        admin.end(session_id)


def _generate(api: Api, requested: set[str]) -> dict[str, bytes]:
    """Run the generators in one blank sandbox per runtime; return the archives by project name."""
    runtimes = {GENERATORS[name].runtime for name in requested}
    blank = {runtime: api.launch(runtime_type=runtime)[0]["session_id"] for runtime in runtimes}

    def generate(name: str) -> dict[str, bytes]:
        session_id = blank[GENERATORS[name].runtime]
        body = {"command": GENERATORS[name].command, "timeout_seconds": 240}
        made = api.http.post(f"/api/v1/sessions/{session_id}/exec", json=body, timeout=250).json()
        assert made["exit_code"] == 0, made
        archives = {}
        for project in (project for project, what in PROJECTS.items() if what.generator == name):
            packed = api.exec(session_id, f"tar -czf {project}.tgz -C {project} .")
            assert packed["exit_code"] == 0, packed
            archive = api.http.get(f"/api/v1/sessions/{session_id}/files", params={"path": f"{project}.tgz"})
            archives[project] = archive.content
        return archives

    try:
        with ThreadPoolExecutor() as pool:
            made = pool.map(generate, sorted(requested))
            return {project: archive for archives in made for project, archive in archives.items()}
    finally:
        for session_id in blank.values():
            api.end(session_id)


@pytest.mark.parametrize("name", PROJECTS)
def test_project_is_recognised_launched_and_previewed(
    admin: Api, launched: Callable[[str], dict[str, Any]], browser: Browser, name: str
) -> None:
    project, made = PROJECTS[name], launched(name)
    (role,) = made["plan"]
    plan = made["plan"][role]
    assert (plan["framework"], plan["runtime"], plan["port"]) == (project.framework, project.runtime, project.port)
    assert plan["install"] == project.install

    session = _running(admin, made["session_id"])
    assert session["preview_port"] == project.port
    with preview(admin, session) as client:
        for path, text in project.answers.items():
            assert text in page(client, path), path
    if project.shows:
        expect_text(browser, session["preview_url"], project.shows)
    admin.end(made["session_id"])


@pytest.mark.parametrize("name", [FULLSTACK])
def test_front_end_and_back_end_together(
    admin: Api, launched: Callable[[str], dict[str, Any]], browser: Browser, name: str
) -> None:
    made = launched(name)
    assert {role: (plan["framework"], plan["root"], plan["port"]) for role, plan in made["plan"].items()} == {
        "backend": ("fastapi", "backend", 8000),
        "frontend": ("vite", "frontend", 5173),
    }
    assert made["plan"]["frontend"]["install"] == "npm ci"
    session = _running(admin, made["session_id"])
    assert (session["preview_port"], session["backend_port"]) == (5173, 8000)
    with preview(admin, session) as client:
        hello = client.get("/api/hello").json()
        assert (hello["message"], hello["python"][:5]) == ("Hello from the back end!", "3.12.")
    expect_text(browser, session["preview_url"], "Hello from the back end!")
    admin.end(made["session_id"])


@pytest.mark.parametrize("name", [PROXIED])
def test_a_front_end_that_proxies_to_localhost_reaches_the_back_end(
    admin: Api, launched: Callable[[str], dict[str, Any]], name: str
) -> None:
    session = _running(admin, launched(name)["session_id"])
    assert session["preview_port"] == 5173
    link = urlsplit(session["preview_url"])
    with preview(admin, session) as client:
        assert "/@vite/client" in page(client)
        assert client.get("/api/hello").json() == {"message": "Hello from localhost!"}
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in client.cookies.jar)
    service = urlsplit(admin.url)
    with (
        socket.create_connection((service.hostname or "", service.port or 80)) as sock,
        connect(
            f"ws://{link.netloc}/ws",
            sock=sock,
            origin=Origin(f"http://{link.netloc}"),
            additional_headers={"Cookie": cookies},
        ) as shouting,
    ):
        shouting.send("loud")
        assert shouting.recv(timeout=30) == "LOUD"
    admin.end(session["session_id"])


def _files(archive: bytes, folder: str) -> dict[str, str | bytes]:
    """Return the files of a .tar.gz with their paths below `folder`."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {os.path.normpath(f"{folder}/{member.name}"): member for member in tar if member.isfile()}
        return {path: file.read() for path, member in members.items() if (file := tar.extractfile(member))}


def _running(api: Api, session_id: str) -> dict[str, Any]:
    """Wait for the end of the launch, which must succeed; return the session."""
    events = list(api.events(session_id))
    session = api.get(session_id)
    assert session["status"] == "running", (session["error"], [event.data for event in events if event.event == "log"])
    return session
