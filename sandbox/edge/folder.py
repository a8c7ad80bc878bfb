"""The edge's folder: its configuration, its sockets, its log."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox.settings import Settings

ADMIN_SOCKET = "admin.sock"
SERVICE_SOCKET = "service.sock"
#: The edge listens here too, for the service itself, which may have no network in common with it.
LOCAL_SOCKET = "local.sock"
ACCESS_LOG = "access.log"
STORAGE = "storage"


@dataclass(frozen=True, slots=True)
class EdgeFolder:
    """`{home}/edge-{port}`, mode 0700. The edge runs in it and its configuration has relative paths only, so that the
    length of the data folder's path does not count towards the 107 bytes that a unix socket's address may have."""

    path: Path

    @classmethod
    def of(cls, settings: Settings) -> EdgeFolder:
        return cls(settings.home / f"edge-{settings.port}")

    @property
    def configuration(self) -> Path:
        return self.path / "caddy.json"

    @property
    def pid_file(self) -> Path:
        return self.path / "caddy.pid"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def log(self) -> Path:
        return self.path / "caddy.log"

    @property
    def admin_socket(self) -> Path:
        return self.path / ADMIN_SOCKET

    @property
    def service_socket(self) -> Path:
        return self.path / SERVICE_SOCKET

    @property
    def local_socket(self) -> Path:
        return self.path / LOCAL_SOCKET

    def make(self) -> None:
        """Create the folder if it is missing."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)

    def listen(self) -> socket.socket:
        """The socket that the service listens on behind the edge, mode 0600. Replaces one that was left behind."""
        self.make()
        return bind_socket(self.service_socket)


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """An address of the unix socket at this path, for the block: it is short, however long the folder's path is."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bind_socket(path: Path) -> socket.socket:
    """A listening unix socket, mode 0600, in place of what is at the path."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    try:
        with short_address(new) as address:
            listener.bind(address)
        new.chmod(0o600)
        listener.listen(2048)
        new.replace(path)
    except BaseException:
        listener.close()
        raise
    return listener
