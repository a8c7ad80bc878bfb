"""Whoever answers somebody goes first: the intake's processes give way, and so does what PostgreSQL does for them.

Where the kernel shares processors out by session (autogroup), `nice` counts only within one, and the session itself has
to be as nice. The intake's processes are given sessions of their own; PostgreSQL's have them anyway.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from functools import cache
from pathlib import Path

import psycopg

#: A tenth of a processor that others want as well: enough to go on.
NICE = 10
_PEER = struct.Struct("3i")


@cache
def give_way() -> None:
    """This process, for good."""
    os.setsid()
    _be_nice(os.getpid())


def let_backend_give_way(connection: psycopg.AsyncConnection) -> None:
    """The connection's process in PostgreSQL, if that is on this machine and we may: most of writing is done there."""
    if (pid := local_backend(connection)) is not None:
        _be_nice(pid)


def local_backend(connection: psycopg.AsyncConnection) -> int | None:
    """Number of the connection's process in PostgreSQL; None if it is none of this machine's.

    What the server says is a number of *its* machine, or container: believed only if the process of that number is a
    child of the one that listens at the other end, and can be seen from here.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as end:
        if end.family != socket.AF_UNIX:
            return None
        listening, _, _ = _PEER.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    pid = connection.info.backend_pid
    try:
        parent = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1]
    except OSError:
        return None
    return pid if listening and int(parent) == listening else None


def _be_nice(pid: int) -> None:
    with contextlib.suppress(OSError):  # it is somebody else's
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
    with contextlib.suppress(OSError):  # the kernel does not share by session
        Path(f"/proc/{pid}/autogroup").write_text(str(NICE), encoding="ascii")
