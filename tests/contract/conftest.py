"""The implementations that each contract is tested on: the fake ones, and the real ones on a container engine.

A test describes what runs in the container as a `Script`. The real container is given the equivalent shell command;
the fake one runs the script when it is given that same command.
"""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from sandbox.engine.base import ContainerSpec, Engine, Limits
from sandbox.engine.docker.engine import DockerEngine
from sandbox.engine.guest import Guest
from sandbox.engine.guest_client.client import GuestClient
from sandbox.engine.labels import network_name
from sandbox.engine.runtimes import RuntimeCatalog
from sandbox.images.runtime_images import RuntimeImages
from sandbox.settings import Settings
from tests.fakes.engine import FakeEngine
from tests.fakes.guest import FakeGuest
from tests.fakes.processes import Script

_IMPLEMENTATIONS = [pytest.param("fake"), pytest.param("docker", marks=pytest.mark.engine)]
_numbers = itertools.count()
_ECHO_SERVER = """
import asyncio
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    await (await asyncio.start_server(echo, "127.0.0.1", {port})).serve_forever()
asyncio.run(main())
"""


@dataclass
class EngineUnderTest:
    """An engine, and what happens to it from outside."""

    engine: Engine
    image: str
    sessions: list[UUID] = field(default_factory=list)

    def spec(self, role: str = "main", session_id: UUID | None = None, **changes: str) -> ContainerSpec:
        """A container of a new session, or of the given one."""
        session_id = session_id or uuid4()
        self.sessions.append(session_id)
        limits = Limits(memory_bytes=256 << 20, cpus=1.0, pids=64)
        return ContainerSpec(
            session_id, role, changes.get("image", self.image), "python312", changes.get("network"), limits
        )

    def kill(self, spec: ContainerSpec, container_id: str) -> None:
        """End the container by SIGKILL."""
        if isinstance(self.engine, FakeEngine):
            self.engine.kill(spec.session_id, spec.role)
        else:
            subprocess.run(["docker", "kill", container_id], check=True, capture_output=True)

    def pause(self, spec: ContainerSpec, container_id: str) -> None:
        if isinstance(self.engine, FakeEngine):
            self.engine.pause(spec.session_id, spec.role)
        else:
            subprocess.run(["docker", "pause", container_id], check=True, capture_output=True)

    def disconnect(self, spec: ContainerSpec, container_id: str) -> None:
        """Detach the container from its session's network."""
        if isinstance(self.engine, FakeEngine):
            self.engine.disconnect(spec.session_id, spec.role)
        else:
            command = ["docker", "network", "disconnect", "--force", network_name(spec.session_id), container_id]
            subprocess.run(command, check=True, capture_output=True)

    def remove_network(self, spec: ContainerSpec, container_id: str) -> None:
        """Remove the session's network, of which the container is the only member."""
        if isinstance(self.engine, FakeEngine):
            self.engine.remove_network(spec.session_id)
        else:
            self.disconnect(spec, container_id)
            command = ["docker", "network", "rm", network_name(spec.session_id)]
            subprocess.run(command, check=True, capture_output=True)


@dataclass
class GuestUnderTest:
    """A guest agent in a running container."""

    guest: Guest

    def program(self, script: Script) -> str:
        """A shell command that does what the script says, different from all others."""
        command = f"{_shell(script)} # {next(_numbers)}"
        if isinstance(self.guest, FakeGuest):
            self.guest.script(command, script)
        return command


def _shell(script: Script) -> str:
    steps = [f"printf %s {shlex.quote(script.output.decode())}"]
    if script.errors:
        steps.append(f"printf %s {shlex.quote(script.errors.decode())} >&2")
    if script.reads:
        steps.append("cat")
    if script.listens:
        (port,) = script.listens
        steps.append(f"exec python3 -c {shlex.quote(_ECHO_SERVER.format(port=port))}")
    elif script.exit_code is None:
        steps.append("exec sleep 600")
    else:
        steps.append(f"sleep {script.delay}; exit {script.exit_code}")
    return "; ".join(steps)


@pytest.fixture(scope="module", params=_IMPLEMENTATIONS)
async def engine_under_test(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineUnderTest]:
    if request.param == "fake":
        fake = FakeEngine()
        yield EngineUnderTest(fake, "fake/python312")
        await fake.aclose()
        return
    image = await RuntimeImages(RuntimeCatalog()).ensure("python312", lambda line: print(line, file=sys.stderr))
    home: Path = tmp_path_factory.mktemp("home")
    docker = DockerEngine(Settings(home=home), uuid4(), guest_factory=GuestClient)
    under_test = EngineUnderTest(docker, image)
    yield under_test
    for session_id in set(under_test.sessions):
        await docker.remove_session(session_id)
    for resource in await docker.list_resources():
        await docker.remove(resource)
    await docker.aclose()


@pytest.fixture(scope="module")
async def guest_under_test(engine_under_test: EngineUnderTest) -> GuestUnderTest:
    spec = engine_under_test.spec()
    await engine_under_test.engine.ensure_container(spec)
    guest = engine_under_test.engine.guest(spec.session_id, spec.role)
    await guest.wait_ready(30)
    return GuestUnderTest(guest)


@pytest.fixture
def guest(guest_under_test: GuestUnderTest) -> Guest:
    return guest_under_test.guest
