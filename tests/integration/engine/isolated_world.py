"""Sandboxes in which code tries to break out: two sessions on the shared network, and one with two roles."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sandbox.engine.base import ContainerSpec, ContainerState, Limits
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest import Guest
from sandbox.engine.guest_data import ExecResult

SECRET = "the-services-own-secret-51c7"
MEMORY = 192 << 20
PIDS = 80


@dataclass
class Sandbox:
    session_id: UUID
    role: str
    state: ContainerState
    guest: Guest

    async def run(self, *command: str, env: dict[str, str] | None = None) -> ExecResult:
        return await self.guest.exec(list(command), env=env, timeout_seconds=60)

    async def sh(self, script: str) -> str:
        """Run a shell script and return its output, including stderr."""
        result = await self.run("bash", "-c", f"exec 2>&1\n{script}")
        return result.stdout.decode()

    async def python(self, source: str, *arguments: object) -> Any:
        """Run a Python program and return the JSON that it prints."""
        result = await self.run("python3", "-c", source, *map(str, arguments))
        assert result.exit_code == 0, result.stderr.decode()
        return json.loads(result.stdout)

    async def answers(self) -> None:
        async with asyncio.timeout(60):
            assert (await self.run("echo", "here")).stdout == b"here\n"


@dataclass
class World:
    """Create two sessions on the shared network, and one with two roles on a network of its own."""

    engine: DockerEngine
    one: Sandbox
    neighbour: Sandbox
    frontend: Sandbox
    backend: Sandbox


@asynccontextmanager
async def world_of(engine: DockerEngine, image: str) -> AsyncIterator[World]:
    async def start(session_id: UUID, role: str, network: str | None) -> Sandbox:
        spec = ContainerSpec(session_id, role, image, "python312", network, Limits(MEMORY, 1.0, PIDS))
        state = await engine.ensure_container(spec)
        guest = engine.guest(session_id, role)
        await guest.wait_ready(30)
        return Sandbox(session_id, role, state, guest)

    sessions = [uuid4() for _ in range(3)]
    try:
        network = await engine.ensure_network(sessions[2])
        wanted = [(0, "main", None), (1, "main", None), (2, "frontend", network), (2, "backend", network)]
        sandboxes = [await start(sessions[number], role, of) for number, role, of in wanted]
        yield World(engine, *sandboxes)
    finally:
        for session_id in sessions:
            await engine.remove_session(session_id)
        for resource in await engine.list_resources():
            await engine.remove(resource)
        await engine.aclose()
