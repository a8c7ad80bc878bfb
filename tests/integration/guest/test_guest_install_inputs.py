"""What decides the result of an install, read in a workspace: which changes lead to another key, and which do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from uuid import uuid4

import pytest

from sandbox.engine.guest_client.client import GuestClient
from sandbox.installs.inputs import Inputs, read_inputs
from tests.integration.guest.running_guests import RunningGuest

NODE = {"package.json": '{"dependencies": {"vite": "^8"}}', "package-lock.json": "{}", "src/main.js": "1"}
PYTHON = {"requirements.txt": "flask\n", "main.py": "1"}
CODE = {"src/main.js", "make.js", "main.py"}
SCRIPTS = {"package.json": '{"scripts": {"postinstall": "node make.js"}}', "make.js": "1"}


@pytest.fixture
async def folder(client: GuestClient, running_guest: RunningGuest) -> AsyncIterator[str]:
    name = f"inputs-{uuid4().hex[:8]}"
    yield f"{running_guest.workspace}/{name}"
    assert await client.remove(name)


async def read(
    client: GuestClient, folder: str, files: Mapping[str, str], command: str = "npm ci", root: str = ""
) -> Inputs:
    for name, content in files.items():
        await client.write_file(f"{folder}/{name}", content.encode())
    inputs = await read_inputs(client, folder, f"{folder}/{root}".rstrip("/"), command)
    assert inputs is not None
    return inputs


@pytest.mark.parametrize(
    ("files", "command", "change", "same"),
    [
        (NODE, "npm ci", {"src/main.js": "2"}, True),
        (NODE, "npm ci", {"node_modules/vite/package.json": "{}"}, True),
        (NODE, "npm ci", {"package-lock.json": '{"lockfileVersion": 3}'}, False),
        (NODE, "npm ci", {".npmrc": "legacy-peer-deps=true"}, False),
        (NODE, "npm ci", {"packages/other/package.json": "{}"}, False),
        (NODE, "npm ci", {"patches/vite.patch": "-1"}, False),
        (NODE, "npm ci && npm run build", {"src/main.js": "2"}, False),
        (SCRIPTS, "npm ci", {"make.js": "2"}, False),
        (PYTHON, "uv venv .venv && uv pip install -r requirements.txt", {"main.py": "2"}, True),
        (PYTHON, "uv venv .venv && uv pip install -r requirements.txt", {"requirements.txt": "flask==3\n"}, False),
        (PYTHON | {"requirements.txt": "-e .\n"}, "uv pip install -r requirements.txt", {"main.py": "2"}, False),
        (PYTHON | {"pyproject.toml": "[build-system]\n"}, "uv sync --frozen", {"main.py": "2"}, False),
        (PYTHON | {"pyproject.toml": "[build-system]\n"}, "uv pip install -r requirements.txt", {"main.py": "2"}, True),
        (PYTHON, "uv pip install .", {"main.py": "2"}, False),
    ],
)
async def test_what_counts(
    client: GuestClient, folder: str, files: dict[str, str], command: str, change: dict[str, str], same: bool
) -> None:
    first = await read(client, folder, files, command)
    assert await read(client, folder, {}, command) == first
    assert (await read(client, folder, change, command) == first) is same
    assert (first.whole_project is not None) is (not same and change.keys() <= CODE)


async def test_the_manifests_of_a_workspace_above_count(client: GuestClient, folder: str) -> None:
    files = {"package.json": '{"workspaces": ["apps/*"]}', "apps/web/package.json": "{}", "apps/api/package.json": "{}"}
    first = await read(client, folder, files, root="apps/web")
    second = await read(client, folder, {"apps/api/package.json": '{"dependencies": {"a": "1"}}'}, root="apps/web")
    assert second != first


async def test_another_role_beside_it_does_not_count(client: GuestClient, folder: str) -> None:
    first = await read(client, folder, {"front/package.json": "{}", "back/requirements.txt": "flask"}, root="front")
    second = await read(client, folder, {"back/requirements.txt": "django"}, root="front")
    assert second == first
