"""What the guest agent's tests run on: a guest agent as a process, its bridge, its container."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from docker.models.containers import Container

import sandbox.guest
from sandbox.engine.guest_client.client import GuestClient
from tests.ports import reserve_port

GUEST = Path(sandbox.guest.__file__).parent
USER = 1000
CAPABILITIES = ["SETUID", "SETGID", "KILL", "CHOWN", "DAC_OVERRIDE", "FOWNER"]
PIDS = 100
MEMORY = 192 * 1024 * 1024


@dataclass
class RunningAgent:
    """A running guest agent and where its things are."""

    process: subprocess.Popen[bytes]
    socket: Path
    workspace: Path
    spool: Path
    exports_port: int


def start_agent(folder: Path, exports_port: int | None = None) -> RunningAgent:
    """A guest agent on its own socket, workspace and spool below the folder. `exports_port` None: any that is free."""
    port = exports_port or reserve_port()
    workspace = folder / "workspace"
    workspace.mkdir()
    path = folder / "run" / "agent.sock"
    spool = folder / "spool"
    process = subprocess.Popen(
        [
            sys.executable, "-I", "-S", str(GUEST), "serve", "--socket", str(path),
            "--workspace", str(workspace), "--user-uid", str(USER), "--spool", str(spool),
            "--exports-port", str(port),
        ],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
    )  # fmt: skip
    return RunningAgent(process, path, workspace, spool, port)


class BridgeConnector:
    """Reaches the guest agent through its own `connect` command, its stdin in frames, as `docker exec -i` has it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.bridges: list[subprocess.Popen[bytes]] = []

    async def __call__(self) -> socket.socket:
        ours, near = socket.socketpair()
        command = [sys.executable, "-I", "-S", str(GUEST), "connect", "--socket", str(self._path)]

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=near.fileno())

        bridge = await asyncio.to_thread(start)
        self.bridges.append(bridge)
        threading.Thread(target=self._send, args=(near, bridge), daemon=True).start()
        ours.setblocking(False)
        return ours

    def _send(self, near: socket.socket, bridge: subprocess.Popen[bytes]) -> None:
        assert bridge.stdin is not None
        with near, contextlib.suppress(BrokenPipeError), bridge.stdin as stdin:
            while data := near.recv(65_536):
                stdin.write(len(data).to_bytes(4, "big") + data)
                stdin.flush()


@dataclass
class AgentContainer:
    """A container whose main process is the agent."""

    container: Container
    client: GuestClient
