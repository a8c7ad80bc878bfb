"""Whoever answers somebody goes first: the intake's processes give way, and so does what PostgreSQL does for them.

They do so at once where there is an `IdleGroup`, and in their share of the processors where there is none. Where the
kernel shares these out by session (autogroup), `nice` counts only within one, and the session itself has to be as nice.
The intake's processes are given sessions of their own; PostgreSQL's have them anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psycopg

from sandbox.records.otlp.idle_group import IdleGroup

#: A tenth of a processor that others want as well: enough to go on.
NICE = 10
#: Seconds that one piece of work may wait for everybody else, and how long none has to after that.
PATIENCE_SECONDS, IMPATIENT_SECONDS = 1.0, 30.0
_PEER = struct.Struct("3i")


class Patience:
    """How long the intake's work waits for everybody else. Of one event loop.

    On a machine whose processors are all wanted for minutes, what is idle would never be done, and might hold a lock of
    PostgreSQL's meanwhile.
    """

    def __init__(self, group: IdleGroup | None) -> None:
        self._group = group
        self._late: set[object] = set()
        self._until: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Work that does not end in time gets its share, and so does all that comes soon after it."""
        if self._group is None:
            yield
            return
        work = object()
        timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._lose, self._group, work)
        try:
            yield
        finally:
            timer.cancel()
            self._late.discard(work)

    def _lose(self, group: IdleGroup, work: object) -> None:
        self._late.add(work)
        group.take_part()
        if self._until is not None:
            self._until.cancel()
        self._until = asyncio.get_running_loop().call_later(IMPATIENT_SECONDS, self._regain, group)

    def _regain(self, group: IdleGroup) -> None:
        if self._late:
            self._until = asyncio.get_running_loop().call_later(IMPATIENT_SECONDS, self._regain, group)
        else:
            group.wait_for_everybody()


def give_way(group: IdleGroup | None, connection: psycopg.AsyncConnection) -> None:
    """This process, for good, and the connection's in PostgreSQL, where most of writing is done.

    That only if it is on this machine and we may.
    """
    if os.getsid(0) != os.getpid():
        os.setsid()
    for pid in (os.getpid(), local_backend(connection)):
        if pid is not None:
            _be_nice(pid)
            if group is not None:
                group.add(pid)


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
