"""The host's folders for the guest agents' sockets: `{home}/run/{session}/{role}`, accessible to root only."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from uuid import UUID

from sandbox.engine.docker.container_config import GUEST_SOCKET
from sandbox.engine.labels import POOL_ROLE
from sandbox.errors import EngineError


class SocketFolders:
    """Creates and removes the folders. Its methods block; callers run them in a thread."""

    def __init__(self, home: Path) -> None:
        self._run = home / "run"

    def folder(self, session_id: UUID, role: str) -> Path:
        """Return the path of the role's folder."""
        return self._session_folder(session_id) / role

    def socket(self, session_id: UUID, role: str) -> Path:
        """Return the path of the guest agent's socket."""
        return self.folder(session_id, role) / GUEST_SOCKET

    def ensure(self, session_id: UUID, role: str) -> Path:
        """Create the role's folder and its parents, with mode 0700, unless they exist; return its path."""
        folder = self.folder(session_id, role)
        for part in (self._run, folder.parent, folder):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def link(self, member: UUID, session_id: UUID, role: str) -> None:
        """Make the folder of a container of the pool the role's as well, unless the role has a folder.

        It is a link, because the engine looks for the folder where it was when the container is started again.
        """
        folder = self.folder(session_id, role)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = Path("..", *self.folder(member, POOL_ROLE).relative_to(self._run).parts)
        with contextlib.suppress(FileExistsError):
            folder.symlink_to(target, target_is_directory=True)

    def remove_session(self, session_id: UUID) -> None:
        """Remove the folders of all roles of the session."""
        _remove(self._session_folder(session_id))

    def remove(self, session_id: UUID, role: str) -> None:
        """Remove one role's folder, and the session's folder with the last of them."""
        _remove(self.folder(session_id, role))
        with contextlib.suppress(OSError):  # It is not empty, or it is gone.
            self._session_folder(session_id).rmdir()

    def _session_folder(self, session_id: UUID) -> Path:
        # A socket's path is limited to 108 bytes. The last 12 digits are random in every version of UUID, while the
        # first ones may be a time.
        return self._run / session_id.hex[-12:]


def _remove(folder: Path) -> None:
    try:
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise EngineError(
            f"the socket folder {folder} cannot be removed: {error}", hint="check who owns the data folder"
        ) from error
