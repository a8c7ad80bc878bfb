"""The service as a process of its own, for tests that use it from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from sandbox.db.embedded import EmbeddedPostgres

ADMIN_TOKEN = "acceptance-admin-token-0123456789"
READY_SECONDS = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Service:
    """One replica. `kill` is SIGKILL; `start` again continues where it was."""

    home: Path
    port: int = field(default_factory=free_port)
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home / f"test-service-{self.port}.log"

    def start(self, **extra: str) -> None:
        """Start it and wait until it answers ready."""
        self.spawn(**extra)
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def spawn(self, **extra: str) -> None:
        env = os.environ | {
            "SANDBOX_HOME": str(self.home),
            "SANDBOX_PORT": str(self.port),
            "SANDBOX_ADMIN_TOKEN": ADMIN_TOKEN,
            **self.env,
            **extra,
        }
        self.home.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sandbox.cli.main", "serve"], env=env, stdout=out, stderr=out
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the service ended with {self.process.returncode}:\n{self.tail()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"the service was not ready after {READY_SECONDS} s:\n{self.tail()}")

    def wait_dead(self, seconds: float = 60) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, as an operator."""
        self._end(signal.SIGTERM)

    def stop_database(self) -> None:
        """Stop the embedded database, which outlives the service."""
        asyncio.run(EmbeddedPostgres(self.home).stop())

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)
        self.process = None

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
