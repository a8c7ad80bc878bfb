"""The other roles' ports on this container's own localhost: what an app expects at home, where all is on one machine.
And the way in for them, where this container's app listens on its own localhost only.

One thread accepts on the loopback and copies bytes between these connections and the other containers. It never blocks,
so a crowd of connections costs the container no processes. They are bounded; more wait to be accepted.

A port that something in the container listens on is left to it. What wants a port that is listened on here finds it
in use: no option of the kernel lets two users listen on one. So this begins late (`launch/neighbours.py`), and ends
before an app is started anew.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from .figures import listens_on_loopback_only
from .tunnel import CONNECT_SECONDS, LOOPBACK, connect_to_loopback
from .wire import Refused

#: Connections relayed at once.
CONNECTIONS = 256
#: Bytes held for a side that does not take them; the other is not read meanwhile.
PIECE = 32 * 1024
WAITING_TO_BE_ACCEPTED = 128
#: A peer that is gone without a word is noticed after some 90 seconds of silence.
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
#: One side has said its last and the other nothing for so long: nobody is there any more.
HALF_CLOSED_SECONDS = 300.0
#: Closing with this resets the connection, as a port does on which nothing listens.
RESET = struct.pack("ii", 1, 0)
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

#: Family and socket address.
Address = tuple[int, Any]
#: Family and host.
Place = tuple[int, str]


class _Door:
    """A port of this container that leads to the same one elsewhere."""

    def __init__(self, port: int, host: str, address: Address, listeners: list[socket.socket]) -> None:
        self.port = port
        #: Where it leads to; "" is this container's own loopback.
        self.host = host
        self.address = address
        self.listeners = listeners


class _Side:
    """One end of a relayed connection."""

    def __init__(self, sock: socket.socket, connection: _Connection) -> None:
        self.sock = sock
        self.connection = connection
        #: What is to be written to it.
        self.held = b""
        #: It has said its last.
        self.ended = False
        #: It has been told that the other has.
        self.told_end = False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    @property
    def other(self) -> _Side:
        return self.connection.far if self is self.connection.near else self.connection.near

    @property
    def wanted(self) -> int:
        """What to wait for."""
        if self.connection.connecting:
            return selectors.EVENT_WRITE if self is self.connection.far else 0
        reads = not self.ended and not self.other.held
        return (selectors.EVENT_READ if reads else 0) | (selectors.EVENT_WRITE if self.held else 0)


class _Connection:
    """From whoever came to a door to what is behind it."""

    def __init__(self, door: _Door, accepted: socket.socket, towards: socket.socket) -> None:
        self.door = door
        self.near = _Side(accepted, self)
        self.far = _Side(towards, self)
        self.connecting = True
        #: It is broken then, unless what is waited for has come.
        self.deadline: float | None = time.monotonic() + CONNECT_SECONDS

    @property
    def is_over(self) -> bool:
        return self.near.told_end and self.far.told_end


class Neighbours:
    """What leads to the other containers. `lead` from any thread; the rest is its own thread's."""

    def __init__(self, connections: int = CONNECTIONS) -> None:
        self._limit = connections
        self._one_at_a_time = threading.Lock()
        self._doors: dict[int, _Door] = {}
        self._thread: threading.Thread | None = None
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._connections: set[_Connection] = set()
        self._accepting = True

    def lead(self, hosts: dict[int, str], own: int | None = None) -> dict[int, str]:
        """From now on these ports of the container's localhost lead to the same ports of these hosts, and no others do.
        The port `own` of the app in here is open to the other containers too, even if it listens on the loopback alone.

        Connections over a port that leads elsewhere now, or nowhere, are broken. Answers why, for each port that does
        not lead where it should. Returns when it is so.
        """
        refused: dict[int, str] = {}
        wanted = hosts if own is None else hosts | {own: ""}
        with self._one_at_a_time:
            gone = [door for port, door in self._doors.items() if wanted.get(port) != door.host]
            if gone:
                self._on_thread(lambda: self._close_doors(gone))
            for port, host in wanted.items():
                try:
                    self._open(port, host)
                except OSError as error:
                    refused[port] = error.strerror or str(error)
                except Refused as error:
                    refused[port] = error.message
                except RuntimeError:
                    refused[port] = "the container is at its limit of processes"
        return refused

    def _open(self, port: int, host: str) -> None:
        target: Address
        places: Iterable[Place]
        if host:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            target, places = (family, address), LOOPBACK
        elif listens_on_loopback_only(port):
            target, places = _loopback_of(port), _own_addresses()
        else:
            return
        door = self._doors.get(port)
        if door is not None:
            door.address = target
            return
        self._start_thread()
        added = _Door(port, host, target, _listen(places, port))
        self._on_thread(lambda: self._add(added))

    def _start_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, daemon=True)
            thread.start()
            self._thread = thread

    def _on_thread(self, function: Callable[[], None]) -> None:
        """Have it done on the thread, and wait until it is."""
        done = threading.Event()

        def call() -> None:
            try:
                function()
            finally:
                done.set()

        self._calls.append(call)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")
        done.wait()

    def _run(self) -> None:
        while True:
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - one connection's trouble must not end all others
                sys.excepthook(*sys.exc_info())
                time.sleep(0.05)

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience()):
            if isinstance(key.data, _Side):
                self._serve(key.data)
            elif key.data is not None:
                door, listener = key.data
                self._accept(door, listener)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
        while self._calls:
            self._calls.popleft()()
        now = time.monotonic()
        for connection in [each for each in self._connections if each.deadline is not None and each.deadline <= now]:
            self._end(connection, reset=True)

    def _patience(self) -> float | None:
        """Seconds until the next deadline."""
        deadlines = (each.deadline for each in self._connections if each.deadline is not None)
        first = min(deadlines, default=None)
        return None if first is None else max(0.0, first - time.monotonic())

    def _add(self, door: _Door) -> None:
        self._doors[door.port] = door
        if self._accepting:
            self._accept_on([door])

    def _accept_on(self, doors: Iterable[_Door]) -> None:
        for door in doors:
            for listener in door.listeners:
                self._selector.register(listener, selectors.EVENT_READ, (door, listener))

    def _stop_accepting_on(self, doors: Iterable[_Door]) -> None:
        for door in doors:
            for listener in door.listeners:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(listener)

    def _close_doors(self, doors: list[_Door]) -> None:
        self._stop_accepting_on(doors)
        for door in doors:
            del self._doors[door.port]
            for listener in door.listeners:
                listener.close()
        for connection in [each for each in self._connections if each.door in doors]:
            self._end(connection, reset=True)

    def _accept(self, door: _Door, listener: socket.socket) -> None:
        if len(self._connections) >= self._limit:
            self._accepting = False
            self._stop_accepting_on(self._doors.values())
            return
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor or memory for it now, or the door was just closed; others are served meanwhile
            time.sleep(0.05)
            return
        family, address = door.address
        try:
            towards = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            _close(accepted, reset=True)
            return
        connection = _Connection(door, accepted, towards)
        self._connections.add(connection)
        if towards.connect_ex(address) in (0, errno.EINPROGRESS):
            self._wait_for(connection.far)
        else:
            self._end(connection, reset=True)

    def _serve(self, side: _Side) -> None:
        """Something is possible at this side."""
        connection = side.connection
        try:
            if not connection.connecting:
                self._write(side)
                self._read(side)
            elif side.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(connection, reset=True)
            else:
                connection.connecting, connection.deadline = False, None
        except OSError:
            self._end(connection, reset=True)
        if connection.is_over:
            self._end(connection, reset=False)
        if connection in self._connections:
            self._wait_for(connection.near)
            self._wait_for(connection.far)

    def _read(self, side: _Side) -> None:
        if side.ended or side.other.held:
            return
        try:
            data = side.sock.recv(PIECE)
        except BlockingIOError:
            return
        if not data:
            side.ended = True
        if side.ended or side.other.ended:
            side.connection.deadline = time.monotonic() + HALF_CLOSED_SECONDS
        side.other.held = data
        self._write(side.other)

    def _write(self, side: _Side) -> None:
        """Write what is held for it, and after that the other's end."""
        if side.held:
            with contextlib.suppress(BlockingIOError):
                side.held = side.held[side.sock.send(side.held) :]
        if side.other.ended and not side.held and not side.told_end:
            side.told_end = True
            side.sock.shutdown(socket.SHUT_WR)

    def _wait_for(self, side: _Side) -> None:
        registered = self._selector.get_map().get(side.sock)
        if registered is None:
            if side.wanted:
                self._selector.register(side.sock, side.wanted, side)
        elif not side.wanted:
            self._selector.unregister(side.sock)
        elif registered.events != side.wanted:
            self._selector.modify(side.sock, side.wanted, side)

    def _end(self, connection: _Connection, *, reset: bool) -> None:
        """Close both sides; done already is done."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        for side in (connection.near, connection.far):
            with contextlib.suppress(KeyError):
                self._selector.unregister(side.sock)
            _close(side.sock, reset=reset)
        if not self._accepting:
            self._accepting = True
            self._accept_on(self._doors.values())


def _loopback_of(port: int) -> Address:
    """The loopback address on which something listens on this port."""
    with connect_to_loopback(port) as probe:
        return probe.family, probe.getpeername()


def _own_addresses() -> list[Place]:
    """Where the other containers find this one."""
    found = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    return [(family, str(address[0])) for family, _, _, _, address in found if (family, address[0]) not in LOOPBACK]


def _listen(places: Iterable[Place], port: int) -> list[socket.socket]:
    """Listening sockets on those of these addresses that there are; OSError if the port is taken on any."""
    listeners: list[socket.socket] = []
    try:
        for family, address in places:
            try:
                listeners.append(_listener(family, address, port))
            except OSError as error:
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listener(family: int, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of before may linger; a port that is listened on is refused all the same.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(WAITING_TO_BE_ACCEPTED)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _close(sock: socket.socket, *, reset: bool) -> None:
    if reset:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()
