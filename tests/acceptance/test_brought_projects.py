"""Projects as people bring them: workspaces, lock files that do not fit, packages that cannot be built."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.acceptance.api import Api
from tests.acceptance.previews import page, preview

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\ndef box():\n    return {'box': 'recipes'}\n"
EXPRESS = (
    "require('express')().get('/', (_, a) => a.json({pins: require('fs').readFileSync('pins.txt', 'utf8')}))"
    ".listen(process.env.PORT)\n"
)


def package(**content: Any) -> str:
    return json.dumps({"name": "brought", "private": True, **content})


#: npm writes such a file if node_modules was there: only the native packages of that machine are in it.
MAC_LOCK = {
    "name": "brought",
    "lockfileVersion": 3,
    "packages": {
        "": {"name": "brought", "dependencies": {"esbuild": "0.25.12"}},
        "node_modules/esbuild": {
            "version": "0.25.12",
            "bin": {"esbuild": "bin/esbuild"},
            "optionalDependencies": {"@esbuild/darwin-arm64": "0.25.12", "@esbuild/linux-x64": "0.25.12"},
        },
        "node_modules/@esbuild/darwin-arm64": {
            "version": "0.25.12",
            "optional": True,
            "cpu": ["arm64"],
            "os": ["darwin"],
        },
    },
}

#: By name: the files, a path of the preview, and text in what it answers.
PROJECTS: dict[str, tuple[dict[str, str], str, str]] = {
    "an app in a pnpm workspace": (
        {
            "package.json": package(packageManager="pnpm@10.34.9"),
            "pnpm-workspace.yaml": "packages: ['apps/*', 'packages/*']\n",
            "packages/labels/package.json": json.dumps({"name": "@x/labels", "version": "1.0.0", "main": "index.js"}),
            "packages/labels/index.js": "export const title = 'labels';\n",
            "apps/web/package.json": package(
                scripts={"dev": "vite"}, dependencies={"@x/labels": "workspace:*"}, devDependencies={"vite": "^6"}
            ),
            "apps/web/index.html": '<script type="module" src="/main.js"></script>',
            "apps/web/main.js": "import { title } from '@x/labels';\nconsole.log(title);\n",
        },
        "/main.js",
        "labels/index.js",
    ),
    "a flat layout that setuptools refuses": (
        {
            "pyproject.toml": '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
            '[project]\nname = "box"\nversion = "1"\ndependencies = ["fastapi"]\n',
            "recipes/__init__.py": "",
            "recipes/main.py": FASTAPI,
            "assets/style.css": "",
            "data/soups.json": "{}",
        },
        "/",
        '"recipes"',
    ),
    "a lock file that is out of step": (
        {
            "package.json": package(scripts={"start": "node server.js"}, dependencies={"escape-html": "1.0.3"}),
            "package-lock.json": json.dumps({"name": "brought", "lockfileVersion": 3, "packages": {"": {}}}),
            "server.js": "const escape = require('escape-html');\n"
            "require('http').createServer((_, a) => a.end(escape('<bus>'))).listen(process.env.PORT);\n",
        },
        "/",
        "&lt;bus&gt;",
    ),
    "a lock file from a machine with macOS": (
        {
            "package.json": package(scripts={"start": "node server.js"}, dependencies={"esbuild": "0.25.12"}),
            "package-lock.json": json.dumps(MAC_LOCK),
            "server.js": "const { code } = require('esbuild').transformSync('let a: number = 1', { loader: 'ts' });\n"
            "require('http').createServer((_, a) => a.end(code)).listen(process.env.PORT);\n",
        },
        "/",
        "let a = 1;",
    ),
    "a script that calls the yarn of the project": (
        {
            "package.json": package(
                packageManager="yarn@4.5.3",
                scripts={"pins": "yarn --version > pins.txt", "dev": "yarn pins && node server.js"},
                dependencies={"express": "^4"},
            ),
            "server.js": EXPRESS,
        },
        "/",
        "4.5.3",
    ),
    "a module with a syntax error beside the app": (
        {"main.py": FASTAPI, "broken.py": "def broken(:\n", "requirements.txt": "fastapi\n"},
        "/",
        '"recipes"',
    ),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_as_it_is_brought(user: Api, name: str) -> None:
    files, path, text = PROJECTS[name]
    launch_and_look(user, files, path, text)


def launch_and_look(user: Api, files: Mapping[str, str], path: str, text: str) -> None:
    user.upload("brought", files)
    session, _ = user.launch(project_id="brought", idle_timeout_seconds=600)
    try:
        assert session["status"] == "running", session["error"]
        with preview(user, session) as visitor:
            assert text in page(visitor, path)
    finally:
        user.end(session["session_id"])


def test_the_reason_of_a_second_install_is_in_the_log(user: Api) -> None:
    files, _, _ = PROJECTS["a lock file that is out of step"]
    user.upload("bus", files)
    session, events = user.launch(project_id="bus", idle_timeout_seconds=600)
    lines = [event.data["line"] for event in events if event.event == "log"]
    user.end(session["session_id"])
    assert "the lock file does not fit the manifest (in this workspace only)" in lines
    assert "npm error Missing: escape-html@1.0.3 from lock file" in lines


WATCH = """
const { spawn, execFileSync } = require('node:child_process');
const fs = require('node:fs');
let server = spawn('node', ['server.js'], { stdio: 'inherit' });
fs.watchFile('server.js', { interval: 100 }, () => {
  execFileSync('ps', ['-o', 'pid', '--no-headers', '--ppid', String(process.pid)]);
  server.once('exit', () => { server = spawn('node', ['server.js'], { stdio: 'inherit' }); });
  server.kill();
});
"""


def test_a_runner_that_calls_ps_restarts_the_server(user: Api) -> None:
    source = "require('http').createServer((_, a) => a.end('queue 1')).listen(process.env.PORT);\n"
    user.upload(
        "queue", {"package.json": package(scripts={"dev": "node watch.js"}), "server.js": source, "watch.js": WATCH}
    )
    session, _ = user.launch(project_id="queue", idle_timeout_seconds=600)
    path = f"/api/v1/sessions/{session['session_id']}/files"
    with preview(user, session) as visitor:
        assert page(visitor) == "queue 1"
        user.http.put(path, params={"path": "server.js"}, content=source.replace("queue 1", "queue 2"))
        deadline = time.monotonic() + 60
        while (answer := visitor.get("/")).text != "queue 2":
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.2)
    user.end(session["session_id"])
