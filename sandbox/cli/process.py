"""Starts, finds and stops the service as a background process.

A running service holds a lock on its pid file. The lock is released when the process ends, however it ends, so the pid
file of a killed service is recognised as stale even if another process has that pid now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
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
#: What a service that is about to end adds to its pid file.
_ENDING = "ending"


def pid_file(settings: Settings) -> Path:
    """Return the path of the service's pid file."""
    return settings.home / f"service-{settings.port}.pid"


def log_file(settings: Settings) -> Path:
    """Return the path of the background service's log."""
    return settings.home / f"service-{settings.port}.log"


def base_url(settings: Settings) -> str:
    """Return the service's URL for clients on this machine."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::", "localhost") else settings.host  # noqa: S104 - compared
    scheme = "http" if settings.tls == "off" else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"


@contextmanager
def claim(settings: Settings) -> Iterator[None]:
    """Hold the lock of the service of this data folder and port. Raises Conflict if another process holds it."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = pid_file(settings)
    with path.open("a+") as file:
        if not _lock(file, timeout_seconds=1.0):
            raise Conflict(
                f"A service with data folder {settings.home} and port {settings.port} is already running",
                hint="Stop it with `sandbox down`, or set SANDBOX_PORT.",
                code="already_running",
            )
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate()


def _lock(file: IO[str], timeout_seconds: float = 0.0) -> bool:
    """Lock the file. Return False if it is still locked after the timeout.

    A service waits a moment, because `running_pid` in another process holds the lock for a moment, too.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def running_pid(path: Path) -> int | None:
    """Return the pid of the running service that has locked this pid file, or None."""
    try:
        with path.open("r+") as file:
            if not _lock(file):
                return int((file.read().split() or ["0"])[0]) or None
    except (FileNotFoundError, ValueError):
        return None
    return None


def note_ending(path: Path) -> None:
    """Note in the pid file of the service, which is this process, that it is about to end."""
    with path.open("a") as file:
        file.write(f"{_ENDING}\n")


def staying_pid(path: Path) -> int | None:
    """Return what `running_pid` does, once a service that is about to end has ended. Blocks.

    Such a service still answers for a moment. Raises SandboxError if it does not end.
    """
    deadline = time.monotonic() + _STOP_SECONDS
    while (pid := running_pid(path)) is not None and _ENDING in path.read_text().split():
        if time.monotonic() > deadline:
            raise _still_alive(pid)
        time.sleep(0.05)
    return pid


def start_detached(settings: Settings) -> int:
    """Start `sandbox serve` in the background, wait until it is ready and return its pid. Blocks.

    It outlives this process and its terminal. The log of the previous start is renamed. If the service ends or is not
    ready in time, it is terminated and Unavailable is raised, with the end of its log.
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


def wait_ready(settings: Settings, exit_code: Callable[[], int | None] = lambda: None) -> None:
    """Wait until the service is ready. Blocks.

    Raises Unavailable, with the end of the service's log, if `exit_code` returns one or the service is not ready in
    time.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        code = exit_code()
        if code is not None:
            raise _start_failed(f"The service ended with code {code} while it was starting", log_file(settings))
        if is_ready(settings):
            return
        time.sleep(0.02)
    raise _start_failed(f"The service was not ready after {_START_SECONDS:.0f} s", log_file(settings))


def _start_failed(cause: str, log: Path) -> Unavailable:
    return Unavailable(
        f"{cause}. The end of its log:\n{tail(log)}", hint=f"The whole log: {log}", code="service_start_failed"
    )


#: Open files and connections that the service needs for some hundred sandboxes.
WANTED_FILES = 8192


def raise_file_limit() -> int:
    """Let this process and those it starts open as many files as the system allows it; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems name a hard limit that cannot be set
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def check_port(settings: Settings) -> None:
    """Raise Conflict if something other than this data folder's edge listens where the service is to listen."""
    from sandbox.edge import process as edge

    if settings.edge == "embedded" and edge.EdgeProcess(settings).pid() is None:
        edge.check_port(settings)


def is_ready(settings: Settings) -> bool:
    """Return whether the service is ready. One with an external edge is asked itself: the edge may come later."""
    from sandbox.edge.folder import EdgeFolder
    from sandbox.edge.unix_http import ask

    try:
        if settings.edge == "external":
            return ask(EdgeFolder.of(settings).service_socket, "GET", "/readyz", timeout=2.0)[0] == 200
        # Whether this machine trusts the edge's certificate is another question. Without TLS it takes 20 ms at each
        # call to read the certificates that it trusts.
        verify = False
        return httpx.get(f"{base_url(settings)}/readyz", timeout=2.0, trust_env=False, verify=verify).is_success
    except (httpx.TransportError, OSError):
        return False


def stop(path: Path) -> int | None:
    """Stop the service with this pid file and wait for its end. Return its pid, or None if none runs. Blocks."""
    pid = running_pid(path)
    if pid is None:
        return None
    for number, timeout in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return pid
        except PermissionError as error:
            raise SandboxError(
                f"The service (pid {pid}) belongs to another user", hint="Stop it as that user.", code="not_permitted"
            ) from error
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if running_pid(path) != pid:
                return pid
            time.sleep(0.05)
    raise _still_alive(pid)


def _still_alive(pid: int) -> SandboxError:
    message = f"The service (pid {pid}) does not end"
    return SandboxError(message, hint=f"See what it does: ps -fp {pid}", code="still_alive")


def tail(path: Path, lines: int = 15) -> str:
    """Return the last lines of a log file."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16_384))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"
