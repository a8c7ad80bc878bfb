"""Addresses on localhost in the code of a page that is shown in a preview."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from sandbox.domain.observations import LaunchWarning
from sandbox.domain.plan import LaunchPlan, RolePlan
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import ExecResult
from sandbox.launch.local_addresses import local_addresses

ENV = "VITE_API_URL=http://localhost:8000\n"


class Folder:
    """Runs commands in a folder of this machine, which stands for the workspace."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    async def exec(self, command: str | list[str], *, cwd: str, **_: Any) -> ExecResult:
        words = ["sh", "-c", command] if isinstance(command, str) else command
        folder = self._workspace / cwd.removeprefix("/workspace").lstrip("/")
        process = await asyncio.create_subprocess_exec(*words, cwd=folder, stdout=asyncio.subprocess.PIPE)
        stdout = (await process.communicate())[0]
        return ExecResult(process.returncode or 0, stdout, b"", 1, timed_out=False, truncated=False)


def write(workspace: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text(text)


def plan(framework: str = "vite", **backend: Any) -> LaunchPlan:
    roles = {
        "frontend": RolePlan(runtime="node20", root="frontend", start="vite", port=5173, framework=framework),
        "backend": RolePlan(runtime="python312", root="backend", start="uvicorn", port=8000, **backend),
    }
    return LaunchPlan(roles=roles)


async def warned(workspace: Path, launched: LaunchPlan) -> list[LaunchWarning]:
    guest = cast(Guest, Folder(workspace))
    return await local_addresses(guest, launched, [5173, 8000], lambda port: f"http://{port}-id.preview.test/")


async def test_the_line_and_what_to_write_are_named(tmp_path: Path) -> None:
    page = 'import x from "y";\nfetch("http://localhost:8000/api/catch");\n'
    write(tmp_path, {"frontend/src/main.js": page, "frontend/src/other.vue": "new WebSocket('ws://127.0.0.1:8000/')"})
    (warning,) = await warned(tmp_path, plan())
    assert warning.code == "local_address"
    assert "frontend/src/main.js:2 (and 1 more) names http://localhost:8000" in warning.message
    assert "http://8000-id.preview.test in its place" in warning.hint


async def test_a_variable_that_the_line_names_is_the_remedy(tmp_path: Path) -> None:
    code = 'const api = import.meta.env.VITE_API_URL ?? "http://localhost:8000";\n'
    write(tmp_path, {"frontend/main.js": code})
    (warning,) = await warned(tmp_path, plan())
    assert "VITE_API_URL=http://8000-id.preview.test in its .env.local" in warning.hint
    write(tmp_path, {"frontend/.env.local": "VITE_API_URL=http://8000-id.preview.test\n"})
    assert await warned(tmp_path, plan()) == []


async def test_an_address_in_a_file_of_variables_is_found(tmp_path: Path) -> None:
    write(tmp_path, {"frontend/main.js": "fetch(import.meta.env.VITE_API_URL)", "frontend/.env": ENV})
    (warning,) = await warned(tmp_path, plan())
    assert "frontend/.env:1 names http://localhost:8000" in warning.message
    assert "VITE_API_URL=http://8000-id.preview.test in its .env.local" in warning.hint
    write(tmp_path, {"frontend/.env.local": "VITE_API_URL=http://8000-id.preview.test\n"})
    assert await warned(tmp_path, plan()) == []


@pytest.mark.parametrize("name", ["backend/static/app.js", "backend/templates/index.html"])
async def test_what_a_server_sends_as_it_is_may_not_name_its_own_address(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: 'fetch("http://localhost:8000/api")', "backend/main.js": 'log("http://localhost:8000")'})
    alone = RolePlan(runtime="python312", root="backend", start="uvicorn", port=8000, framework="fastapi")
    (warning,) = await warned(tmp_path, LaunchPlan(roles={"backend": alone}))
    assert warning.message.startswith(f"{name}:1 names http://localhost:8000")
    assert warning.hint.startswith("Write the path alone, without http://localhost:8000")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("frontend/vite.config.js", 'proxy: { "/api": "http://localhost:8000" }'),
        ("frontend/src/main.js", 'console.log("http://localhost:8000")'),
        ("frontend/src/main.js", 'fetch("http://localhost:80001/")'),
        ("frontend/src/main.js", 'location = "http://localhost:5173/here"'),
        ("frontend/node_modules/a/index.js", 'fetch("http://localhost:8000")'),
        ("backend/app.js", 'fetch("http://localhost:8000")'),
    ],
)
async def test_what_a_browser_does_not_ask_is_left_out(tmp_path: Path, name: str, code: str) -> None:
    write(tmp_path, {"frontend/index.html": "", name: code})
    assert await warned(tmp_path, plan()) == []


async def test_servers_may_ask_localhost(tmp_path: Path) -> None:
    write(tmp_path, {"frontend/server.ts": "", "frontend/routes.js": 'fetch("http://localhost:8000")'})
    assert await warned(tmp_path, plan("express")) == []
