"""An agent that runs for real: as a process of this machine, and in a container."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import docker
import pytest
from docker.models.containers import Container

import sandbox.agent
from sandbox.engine.agent_client import AgentClient
from sandbox.engine.agent_wire import UnixConnector

AGENT = Path(sandbox.agent.__file__).parent
USER = 1000
CAPABILITIES = ["SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE", "FOWNER"]
PIDS = 100
MEMORY = 192 * 1024 * 1024
BASE_IMAGE = "sbx-test-agent-base:dev"


@dataclass
class RunningAgent:
    """A running agent and where its things are."""

    process: subprocess.Popen[bytes]
    socket: Path
    workspace: Path
    spool: Path


def start_agent(folder: Path) -> RunningAgent:
    """An agent on its own socket, workspace and spool below the folder."""
    workspace = folder / "workspace"
    workspace.mkdir()
    path = folder / "run" / "agent.sock"
    spool = folder / "spool"
    process = subprocess.Popen(
        [
            sys.executable, "-I", "-S", str(AGENT), "serve", "--socket", str(path),
            "--workspace", str(workspace), "--user-uid", str(USER), "--spool", str(spool),
        ],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
    )  # fmt: skip
    return RunningAgent(process, path, workspace, spool)


@pytest.fixture(scope="session")
def running_agent() -> Iterator[RunningAgent]:
    # Below /tmp and open to pass through: commands run as another user.
    folder = Path(tempfile.mkdtemp(prefix="sandbox-agent-test-", dir="/tmp"))
    folder.chmod(0o755)
    agent = start_agent(folder)
    yield agent
    agent.process.send_signal(signal.SIGTERM)
    try:
        assert agent.process.wait(15) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            agent.process.kill()
        shutil.rmtree(folder)


@pytest.fixture
async def client(running_agent: RunningAgent) -> AsyncIterator[AgentClient]:
    agent = AgentClient(UnixConnector(running_agent.socket))
    await agent.wait_ready(10)
    yield agent
    await agent.aclose()


class BridgeConnector:
    """Reaches the agent through its own `connect` command, as `docker exec -i` would."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.bridges: list[subprocess.Popen[bytes]] = []

    async def __call__(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-I", "-S", str(AGENT), "connect", "--socket", str(self._path)]
            self.bridges.append(await asyncio.to_thread(subprocess.Popen, command, stdin=theirs, stdout=theirs))
        ours.setblocking(False)
        return ours


@pytest.fixture
async def bridged(running_agent: RunningAgent, client: AgentClient) -> AsyncIterator[AgentClient]:
    connector = BridgeConnector(running_agent.socket)
    agent = AgentClient(connector)
    await agent.wait_ready(10)
    yield agent
    await agent.aclose()
    for bridge in connector.bridges:
        assert await asyncio.to_thread(bridge.wait, 10) == 0


@pytest.fixture(scope="session")
def agent_image() -> str:
    """An image with a Python to run the agent: a bare Debian, built once."""
    engine = docker.from_env()
    try:
        if not engine.images.list(BASE_IMAGE):
            with tempfile.TemporaryDirectory() as folder:
                archive = Path(folder) / "base.tar"
                subprocess.run(
                    ["mmdebstrap", "--variant=minbase", "--include=python3", "bookworm", str(archive)], check=True
                )
                repository, tag = BASE_IMAGE.split(":")
                engine.api.import_image_from_file(str(archive), repository=repository, tag=tag)
    finally:
        engine.close()
    return BASE_IMAGE


@dataclass
class AgentContainer:
    """A container whose main process is the agent."""

    container: Container
    client: AgentClient


@pytest.fixture
async def contained(agent_image: str) -> AsyncIterator[AgentContainer]:
    engine = docker.from_env()
    folder = Path(tempfile.mkdtemp(prefix="sandbox-agent-test-", dir="/tmp"))
    container = await asyncio.to_thread(
        engine.containers.run,
        agent_image,
        ["python3", "-I", "-S", "/opt/sandbox-agent", "serve", "--socket", "/run/sandbox-agent/agent.sock"],
        name=f"sbx-test-agent-{uuid4().hex[:12]}",
        detach=True,
        init=True,
        network_mode="none",
        cap_drop=["ALL"],
        cap_add=CAPABILITIES,
        security_opt=["no-new-privileges"],
        pids_limit=PIDS,
        mem_limit=MEMORY,
        memswap_limit=MEMORY,
        volumes={
            str(AGENT): {"bind": "/opt/sandbox-agent", "mode": "ro"},
            str(folder): {"bind": "/run/sandbox-agent", "mode": "rw"},
        },
    )
    agent = AgentClient(UnixConnector(folder / "agent.sock"))
    try:
        await agent.wait_ready(30)
        yield AgentContainer(container, agent)
    finally:
        await agent.aclose()
        await asyncio.to_thread(container.remove, force=True, v=True)
        engine.close()
        shutil.rmtree(folder)
