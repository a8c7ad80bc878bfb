"""Starts, stops and kills the service as a separate process, for tests that use it from outside."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

from sandbox.db.embedded import EmbeddedPostgres
from sandbox.edge.process import EdgeProcess
from sandbox.settings import Settings
from tests.ports import reserve_port

ADMIN_TOKEN = "acceptance-admin-token-0123456789"
READY_SECONDS = 120
#: The number of sessions that one user of the strict service may have.
SESSIONS_PER_USER = 3


class Process(Protocol):
    """The part of `subprocess.Popen` that is used here."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int) -> None: ...


@dataclass
class Service:
    """One replica of the service, with its data folder `home`. It can be started again after `stop` or `kill`."""

    home: Path
    port: int = field(default_factory=reserve_port)
    env: dict[str, str] = field(default_factory=dict)
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home / f"test-service-{self.port}.log"

    def start(self, **extra: str) -> None:
        """Start the process and wait until `/readyz` answers 200. `extra` are environment variables for this start."""
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
        """Run `sandbox ARGUMENTS` to its end in the service's own environment."""
        command = [sys.executable, "-m", "sandbox.cli.main", *arguments]
        return subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=False)

    def _environment(self) -> dict[str, str]:
        settings = {
            "SANDBOX_HOME": str(self.home),
            "SANDBOX_PORT": str(self.port),
            "SANDBOX_ADMIN_TOKEN": ADMIN_TOKEN,
            # No lot: a test knows whether a lesson is applied.
            "SANDBOX_LESSONS_WITHHELD_PERCENT": "0",
            # Tests count containers, and watch installs.
            "SANDBOX_POOL_MAX": "0",
            "SANDBOX_INSTALLS_MB": "0",
            # And look at sessions that were lost.
            "SANDBOX_RECOVER_AT_START": "false",
        }
        return {**os.environ, **settings, **self.env}

    def _run(self, env: dict[str, str]) -> Process:
        with self.log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "sandbox.cli.main", "serve"], env=env, stdout=out, stderr=out
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            exit_code = None if self.process is None else self.process.poll()
            if exit_code is not None:
                raise AssertionError(f"the service ended with {exit_code}:\n{self.tail()}")
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"the service was not ready after {READY_SECONDS} s:\n{self.tail()}")

    def wait_dead(self, seconds: float = READY_SECONDS) -> int:
        """Wait for the process to end; return its exit code, which is negative after a signal."""
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the service had not ended after {seconds} s:\n{self.tail()}") from None

    def freeze(self) -> None:
        """Send SIGSTOP: the process does not run until `thaw` or `kill`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT to a process that was frozen."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process with SIGKILL, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the process with SIGTERM, as an operator would."""
        self._end(signal.SIGTERM)

    def stop_edge(self) -> None:
        """Stop the proxy in front, which outlives the service."""
        self.edge().stop()

    def kill_edge(self) -> None:
        """End the proxy in front with SIGKILL."""
        pid = self.edge().pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)

    def edge(self) -> EdgeProcess:
        return EdgeProcess(Settings(home=self.home, port=self.port))

    def stop_database(self) -> None:
        """Stop the embedded database, which goes on running after the service has ended."""
        asyncio.run(EmbeddedPostgres(self.home).stop())

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(READY_SECONDS)
        self.process = None

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class QuickService(Service):
    """A service that starts in a tenth of the time, because it is forked from a process that has imported everything.

    Most of a start is the import of modules. For tests that do not test the start of the program itself.
    """

    def _run(self, env: dict[str, str]) -> Process:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["sandbox.app", "sandbox.cli.main", "uvicorn.protocols.http.httptools_impl"])
        process = context.Process(target=_serve, args=(env, self.log))
        process.start()
        return _Forked(process)


class _Forked:
    """Gives a `multiprocessing` process the methods of `Process`."""

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
    """Run `sandbox serve` in this process, which was forked for it."""
    from sandbox.cli.main import app  # noqa: PLC0415 - imported once, in the fork server

    os.environ.clear()
    os.environ.update(env)
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    app(["serve"])
