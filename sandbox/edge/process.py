"""The edge as a process of its own: started, found, given a configuration, stopped.

It outlives the service, as the embedded database does, so that open previews do not notice a restart of the service.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

from sandbox.edge.admin import EdgeAdmin, identified
from sandbox.edge.connection_limit import apply_limit, remove_limit
from sandbox.edge.folder import EdgeFolder
from sandbox.edge.program import EdgeUnavailable, find_program
from sandbox.errors import Conflict
from sandbox.settings import Settings

_START_SECONDS = 30.0
#: Caddy closes its listeners at once and gives requests under way the `grace_period` of its configuration.
_STOP_SECONDS = 10.0
_KEPT_LOG_BYTES = 4 * 1024 * 1024


class EdgeProcess:
    """The edge of one data folder and port. Blocking calls, safe between processes: a file lock serializes them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = EdgeFolder.of(settings)
        self._admin = EdgeAdmin(self.folder)
        self._child: subprocess.Popen[bytes] | None = None

    def pid(self) -> int | None:
        """The running edge's process id; None if it does not run."""
        if self._child is not None:
            self._child.poll()  # else a child that has ended stays as a zombie
        try:
            pid = int(self.folder.pid_file.read_text())
            process = psutil.Process(pid)
            # After a crash the number in the file may be another process's.
            ours = process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(self.folder.path.resolve())
        except (FileNotFoundError, ValueError, psutil.Error):
            return None
        return pid if ours else None

    def runs(self, _: Mapping[str, Any]) -> bool:
        """Whether the edge runs. Only `ensure` changes its configuration."""
        return self.pid() is not None

    def ensure(self, configuration: Mapping[str, Any]) -> int:
        """Start the edge, or load the configuration into the one that runs; its process id.

        Raises EdgeUnavailable if it does not start or refuses the configuration, Conflict if its port is taken.
        """
        self.folder.make()
        with self._locked():
            apply_limit(self._settings)
            pid = self.pid()
            if pid is None:
                self._write(configuration)
                return self._start()
            if not self._admin.holds(configuration):
                self._admin.load(configuration)
                self._write(configuration)
            return pid

    def stop(self) -> int | None:
        """Stop the edge and wait for its end; its process id, None if it did not run."""
        if not self.folder.path.is_dir():
            return None
        remove_limit(self._settings.port)
        with self._locked():
            pid = self.pid()
            if pid is None:
                return None
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                deadline = time.monotonic() + _STOP_SECONDS
                while time.monotonic() < deadline:
                    if self.pid() is None:
                        if self._child is not None:
                            self._child.wait()
                            self._child = None
                        self.folder.pid_file.unlink(missing_ok=True)
                        return pid
                    time.sleep(0.05)
            raise EdgeUnavailable(f"The edge (pid {pid}) does not end", hint=f"Its log: {self.folder.log}")

    def _start(self) -> int:
        program, _ = find_program(self._settings)
        check_port(self._settings)
        folder = self.folder
        for left in (folder.pid_file, folder.admin_socket):
            left.unlink(missing_ok=True)
        if folder.log.exists() and folder.log.stat().st_size > _KEPT_LOG_BYTES:
            folder.log.replace(folder.log.with_suffix(".log.1"))
        with os.fdopen(os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as sink:
            offset = sink.tell()
            child = subprocess.Popen(
                [program, "run", "--config", folder.configuration, "--pidfile", folder.pid_file],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=folder.path,
                umask=0o077,
                start_new_session=True,
                # It needs no more: above all none of the service's secrets.
                env={
                    "PATH": "/usr/bin:/bin",
                    "HOME": str(folder.path),
                    "XDG_DATA_HOME": str(folder.path),
                    "GOGC": "200",  # fewer collections, for some more of the little memory that it needs
                },
            )
        self._child = child
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if child.poll() is not None:
                break
            if self.pid() == child.pid and self._admin.answers():
                return child.pid
            time.sleep(0.02)
        child.kill()
        child.wait()
        raise EdgeUnavailable(
            f"The edge did not start: {self._last_error(offset)}",
            hint=f"Its log: {folder.log}. Without an edge: sandbox serve --no-edge",
        )

    def _write(self, configuration: Mapping[str, Any]) -> None:
        _, text = identified(configuration)
        new = self.folder.configuration.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        new.replace(self.folder.configuration)

    def _last_error(self, offset: int) -> str:
        with self.folder.log.open("rb") as file:
            file.seek(offset)
            lines = file.read().decode(errors="replace").strip().splitlines()
        return lines[-1][-1000:] if lines else "it wrote no log"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.folder.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def check_port(settings: Settings) -> None:
    """Raise Conflict if something listens on the edge's port. Caddy shares a port with another Caddy."""
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
