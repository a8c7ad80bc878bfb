"""The service as a process of its own, for tests that use it from outside."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from sandbox.db.embedded import EmbeddedPostgres

ADMIN_TOKEN = "acceptance-admin-token-0123456789"
READY_SECONDS = 60
#: Sessions a user of the strict service may have.
SESSIONS_EACH = 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process(Protocol):
    """What is used here of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int) -> None: ...


@dataclass
class Service:
    """One replica. `kill` is SIGKILL; `start` again continues where it was."""

    home: Path
    port: int = field(default_factory=free_port)
    env: dict[str, str] = field(default_factory=dict)
    process: Process | None = None

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
        self.home.mkdir(parents=True, exist_ok=True)
        self.process = self._run(self._environment() | extra)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `sandbox ...` to its end, as one who types it on the service's machine."""
        command = [sys.executable, "-m", "sandbox.cli.main", *arguments]
        return subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)

    def _environment(self) -> dict[str, str]:
        own = {
            "SANDBOX_HOME": str(self.home),
            "SANDBOX_PORT": str(self.port),
            "SANDBOX_ADMIN_TOKEN": ADMIN_TOKEN,
        }
        return {**os.environ, **own, **self.env}

    def _run(self, env: dict[str, str]) -> Process:
        with self.log.open("ab") as out:
            return subprocess.Popen(
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

    def freeze(self) -> None:
        """SIGSTOP: it does nothing at all until it is thawed or killed."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

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


class QuickService(Service):
    """The same, started in a tenth of the time: forked off a process that has imported everything and done nothing.

    For tests that start the service dozens of times; most of a start is importing.
    """

    def _run(self, env: dict[str, str]) -> Process:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sandbox.app", "sandbox.cli.main", "uvicorn.protocols.http.httptools_impl"])
        process = context.Process(target=_serve, args=(env, self.log))
        process.start()
        return _Forked(process)


class _Forked:
    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid: int = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("sandbox serve", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _serve(env: dict[str, str], log: Path) -> None:
    """`sandbox serve`, in a process of its own."""
    from sandbox.cli.main import app  # noqa: PLC0415 - once, in the process that all others are forked off

    os.environ.clear()
    os.environ.update(env)
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    app(["serve"])
