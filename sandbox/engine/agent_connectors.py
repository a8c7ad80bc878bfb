"""Ways to an agent's socket: each is an async callable that gives a connected, non-blocking socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from sandbox.errors import AgentError

Connector = Callable[[], Awaitable[socket.socket]]


class FolderConnector:
    """The agent's unix socket in a folder that host and container share.

    Connects through the folder's descriptor, so that the path's length does not matter (a socket's is at most 107).
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __call__(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                await asyncio.get_running_loop().sock_connect(connection, f"/proc/self/fd/{folder}/{self._path.name}")
            finally:
                os.close(folder)
        except OSError as error:
            connection.close()
            raise AgentError(
                f"the agent's socket does not answer: {error}",
                code="agent_unreachable",
                hint="the container may be starting, or gone",
            ) from error
        except BaseException:
            with contextlib.suppress(OSError):
                connection.close()
            raise
        return connection
