"""An agent that runs for real: as a process of this machine, and in a container."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import sandbox.agent
from sandbox.engine.agent_client import AgentClient
from sandbox.engine.agent_wire import UnixConnector

AGENT = Path(sandbox.agent.__file__).parent
USER = 1000


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
    socket = folder / "run" / "agent.sock"
    spool = folder / "spool"
    process = subprocess.Popen(
        [
            sys.executable, "-I", "-S", str(AGENT), "serve", "--socket", str(socket),
            "--workspace", str(workspace), "--user-uid", str(USER), "--spool", str(spool),
        ],
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
    )  # fmt: skip
    return RunningAgent(process, socket, workspace, spool)


@pytest.fixture(scope="module")
def running_agent() -> Iterator[RunningAgent]:
    # Below /tmp and open to pass through: commands run as another user.
    folder = Path(tempfile.mkdtemp(prefix="sandbox-agent-test-"))
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
