"""Guest agents for the tests: one as a process of this machine, one behind the bridge, one in a container."""

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
class RunningGuest:
    """A guest agent that runs as a process, with its paths and its OTLP port."""

    process: subprocess.Popen[bytes]
    socket: Path
    workspace: Path
    spool: Path
    exports_port: int


def start_guest(folder: Path, exports_port: int | None = None) -> RunningGuest:
    """Start a guest agent with its paths below the folder. `exports_port` None means any free port."""
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
    return RunningGuest(process, path, workspace, spool, port)


class BridgeConnector:
    """Connects through the guest agent's `connect` command with framed stdin, as it is run by `docker exec -i`."""

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
class GuestContainer:
    """A container whose main process is the guest agent."""

    container: Container
    client: GuestClient
