"""Real projects, made by the frameworks' own generators where they have one: uploaded, launched, previewed.

The generators run in blank sandboxes, so nothing of Node.js or Django is needed on the machine itself. All launches are
started first and then waited for one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.acceptance.api import Api, tar_of
from tests.acceptance.previews import page, preview


@dataclass(frozen=True)
class Generator:
    """A command that makes projects in folders of a blank sandbox's workspace."""

    runtime: str
    command: str


@dataclass(frozen=True)
class Project:
    """One project: where its files come from, what it is recognised as, and what its preview answers."""

    framework: str
    runtime: str
    port: int
    install: str | None
    #: Path of the preview -> text that its answer has.
    answers: dict[str, str]
    files: dict[str, str | bytes] = field(default_factory=dict)
    generator: str | None = None


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
        files={"streamlit_app.py": 'import streamlit as st\n\nst.title("Figures")\nst.write(6 * 7)\n'},
    ),
    "vite-vanilla": Project(
        "vite",
        "node20",
        5173,
        "npm install",
        {"/": "/@vite/client", "/src/main.js": "setupCounter"},
        generator="vite",
    ),
    "vite-react": Project(
        "vite",
        "node20",
        5173,
        "npm install",
        {"/": "/src/main.jsx", "/src/App.jsx": "Vite + React"},
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
    "next": Project("next", "node20", 3000, "npm install", {"/": "Get started by editing"}, generator="next"),
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


@pytest.fixture(scope="module")
def launched(admin: Api, request: pytest.FixtureRequest) -> Iterator[Callable[[str], dict[str, Any]]]:
    """All selected projects, uploaded and on their way; call it with a name for what its upload and POST answered."""
    here = [item for item in request.session.items if item.path == request.path]
    names = sorted({item.callspec.params["name"] for item in here if hasattr(item, "callspec")})
    archives = _generate(admin, {generator for name in names if (generator := PROJECTS[name].generator)})
    uploads, sessions = {}, {}
    for name in names:
        archive = archives.get(name) or tar_of(PROJECTS[name].files)
        uploads[name] = admin.put_archive(f"made-{name}", archive)
        sessions[name] = admin.create(project_id=f"made-{name}")["session_id"]
    yield lambda name: {"plan": uploads[name]["plan"], "session_id": sessions[name]}
    for session_id in sessions.values():
        admin.end(session_id)


def _generate(api: Api, wanted: set[str]) -> dict[str, bytes]:
    """Archives by project name, of what the generators made in one blank sandbox a runtime."""
    runtimes = {GENERATORS[name].runtime for name in wanted}
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
            made = pool.map(generate, sorted(wanted))
            return {project: archive for archives in made for project, archive in archives.items()}
    finally:
        for session_id in blank.values():
            api.end(session_id)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PROJECTS)
def test_project_is_recognised_launched_and_previewed(
    admin: Api, launched: Callable[[str], dict[str, Any]], name: str
) -> None:
    project, made = PROJECTS[name], launched(name)
    (role,) = made["plan"]
    plan = made["plan"][role]
    assert (plan["framework"], plan["runtime"], plan["port"]) == (project.framework, project.runtime, project.port)
    assert plan["install"] == project.install

    events = list(admin.events(made["session_id"]))
    session = admin.get(made["session_id"])
    assert session["status"] == "running", (session["error"], [event.data for event in events if event.event == "log"])
    assert session["preview_port"] == project.port
    with preview(admin, session) as client:
        for path, text in project.answers.items():
            assert text in page(client, path), path
    admin.end(made["session_id"])
