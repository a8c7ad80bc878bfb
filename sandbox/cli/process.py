"""The service as a process of its own in the background: started, found, stopped.

A running service holds a lock on its pid file for as long as it lives. So a pid file left by a killed one is told from
a live one without guessing, whatever process has that pid now.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from sandbox.errors import Conflict, SandboxError, Unavailable
from sandbox.settings import Settings

_START_SECONDS = 90.0
_STOP_SECONDS = 30.0


def pid_file(settings: Settings) -> Path:
    return settings.home / f"service-{settings.port}.pid"


def log_file(settings: Settings) -> Path:
    return settings.home / f"service-{settings.port}.log"


def base_url(settings: Settings) -> str:
    """Where this machine reaches the service."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "localhost") else settings.host  # noqa: S104 - compared
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


@contextmanager
def claim(settings: Settings) -> Iterator[None]:
    """Be the service of this data folder and port while the block runs. Raises Conflict if another is."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = pid_file(settings)
    with path.open("a+") as held:
        if not _lock(held, patience=1.0):
            raise Conflict(
                f"A service of {settings.home} runs at port {settings.port} already",
                hint="Stop it with `sandbox down`, or set SANDBOX_PORT.",
                code="already_running",
            )
        held.seek(0)
        held.truncate()
        held.write(f"{os.getpid()}\n")
        held.flush()
        try:
            yield
        finally:
            held.seek(0)
            held.truncate()


def _lock(held: IO[str], patience: float = 0.0) -> bool:
    """Lock the file. With patience, because one who only looks whether it is locked holds it for a moment too."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
        else:
            return True


def running_pid(path: Path) -> int | None:
    """The pid of the live service that holds this pid file; None if none does."""
    try:
        with path.open("r+") as held:
            if not _lock(held):
                return int(held.read().strip() or 0) or None
    except (FileNotFoundError, ValueError):
        return None
    return None


def start_detached(settings: Settings) -> int:
    """Start `sandbox serve` so that it outlives this process and its terminal, and wait until it is ready; its pid.

    Blocks. Raises Unavailable with the end of its log if it ends, or is not ready in time; then it is told to end. The
    log of the run before is kept beside it.
    """
    log = log_file(settings)
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.cli.main", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env={**os.environ, "SANDBOX_HOME": str(settings.home), "SANDBOX_PORT": str(settings.port)},
        )
    try:
        wait_ready(settings, process.poll)
    except BaseException:
        process.terminate()
        raise
    return process.pid


def wait_ready(settings: Settings, ended: Callable[[], int | None] = lambda: None) -> None:
    """Wait until the service is ready. Blocks.

    Raises Unavailable with the end of its log if `ended` gives an exit code, or it is not ready in time.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        code = ended()
        if code is not None:
            raise _start_failed(f"The service ended at once, with code {code}", log_file(settings))
        if is_ready(settings):
            return
        time.sleep(0.1)
    raise _start_failed(f"The service was not ready after {_START_SECONDS:.0f} s", log_file(settings))


def _start_failed(cause: str, log: Path) -> Unavailable:
    return Unavailable(
        f"{cause}. The end of its log:\n{tail(log)}", hint=f"All of it: {log}", code="service_start_failed"
    )


def check_port(settings: Settings) -> None:
    """Raise Conflict if something listens where the service is to listen."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(found[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(found[4])
    except OSError as error:
        raise Conflict(
            f"The service cannot listen on {settings.host}:{settings.port}: {error.strerror or error}",
            hint="Set SANDBOX_PORT to a free port, or end what listens there.",
            code="port_taken",
        ) from error


def is_ready(settings: Settings) -> bool:
    """Whether a service answers at the address that it is ready."""
    try:
        return httpx.get(f"{base_url(settings)}/readyz", timeout=2.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def stop(path: Path) -> int | None:
    """Stop the service that holds this pid file and wait for its end; its pid, None if there was none. Blocks."""
    pid = running_pid(path)
    if pid is None:
        return None
    for number, patience in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return pid
        except PermissionError as error:
            raise SandboxError(
                f"The service (pid {pid}) belongs to another user", hint="Stop it as that user.", code="not_permitted"
            ) from error
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if running_pid(path) != pid:
                return pid
            time.sleep(0.05)
    raise SandboxError(
        f"The service (pid {pid}) does not end", hint="Look at it: ps -fp " + str(pid), code="still_alive"
    )


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log file."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16_384))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
