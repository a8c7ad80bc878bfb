"""The host's folders for the guest agents' sockets: `{home}/run/{session}/{role}`, root's alone."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from uuid import UUID

from sandbox.engine.docker.container_config import GUEST_SOCKET
from sandbox.errors import EngineError


class SocketFolders:
    """Blocking file system calls; callers run them in a thread."""

    def __init__(self, home: Path) -> None:
        self._run = home / "run"

    def of(self, session_id: UUID, role: str) -> Path:
        """The role's folder. The last 12 digits: of every version of UUID they are random (the first may be a time)."""
        return self._of_session(session_id) / role

    def socket(self, session_id: UUID, role: str) -> Path:
        return self.of(session_id, role) / GUEST_SOCKET

    def ensure(self, session_id: UUID, role: str) -> Path:
        """The role's folder, made if absent, 0700 like its parents."""
        folder = self.of(session_id, role)
        for part in (self._run, folder.parent, folder):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def remove_session(self, session_id: UUID) -> None:
        _remove(self._of_session(session_id))

    def remove(self, session_id: UUID, role: str) -> None:
        """Remove one role's folder, once its container is gone, and the session's with the last of them."""
        _remove(self.of(session_id, role))
        with contextlib.suppress(OSError):  # not empty, or gone
            self._of_session(session_id).rmdir()

    def _of_session(self, session_id: UUID) -> Path:
        return self._run / session_id.hex[-12:]


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise EngineError(
            f"the socket folder {folder} cannot be removed: {error}", hint="check who owns the data folder"
        ) from error
