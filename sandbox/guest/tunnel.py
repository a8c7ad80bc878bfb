"""Bytes to and fro: a tunnel to a port of the container's loopback, and the bridge of stdio to the agent's socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading

from .wire import Refused, Request, bad_request

PIECE = 64 * 1024
CONNECT_SECONDS = 5.0
LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


def open_tunnel(request: Request) -> None:
    """`CONNECT 127.0.0.1:PORT`: 127.0.0.1 first, then ::1; `port_not_open` if nothing listens on either."""
    host, _, port = request.target.rpartition(":")
    if host != "127.0.0.1" or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise bad_request(f"a tunnel goes to 127.0.0.1 and a port, not to {request.target}")
    with contextlib.closing(connect_to_loopback(int(port))) as target:
        request.switch(200)
        if first := request.connection.take_read_ahead():
            target.sendall(first)
        relay(request.connection.sock, target)


def connect_to_loopback(port: int) -> socket.socket:
    """A connection to whatever listens there; Refused `port_not_open` if nothing does."""
    for family, address in LOOPBACK:
        with contextlib.suppress(OSError):
            target = socket.socket(family, socket.SOCK_STREAM)
            try:
                target.settimeout(CONNECT_SECONDS)
                target.connect((address, port))
                target.settimeout(None)
                target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                target.close()
                raise
            return target
    raise Refused("port_not_open", f"nothing listens on port {port} of the container's loopback", 404)


def relay(one: socket.socket, other: socket.socket) -> None:
    """Copy both ways until both have ended; each end is passed on as it comes."""
    back = threading.Thread(target=_copy, args=(other, one), daemon=True)
    try:
        back.start()
    except RuntimeError:
        raise Refused("agent_refused", "no tunnel, the container is at its limit of processes") from None
    _copy(one, other)
    back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(PIECE):
            target.sendall(data)
        if not _gone(source):
            target.shutdown(socket.SHUT_WR)
            return
    # One side broke or is closed for good: neither direction goes on.
    for sock in (source, target):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _gone(sock: socket.socket) -> bool:
    """Whether the other side has closed both directions, not only ended its own."""
    poller = select.poll()
    poller.register(sock, 0)
    return bool(poller.poll(0))


def bridge(path: str) -> int:
    """Stdin to the agent's socket and its answers to stdout, until either side closes. For `docker exec -i`.

    Stdin comes in frames of 4 bytes of length (big endian) and as many bytes. A length of 0 is the end of what is sent,
    an end of stdin that of the connection: behind an exec nothing else tells the one from the other.
    """
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        agent.connect(path)
    except OSError as error:
        os.write(2, f"the agent does not answer on {path}: {error.strerror}\n".encode())
        return 1
    threading.Thread(target=_send_stdin, args=(agent,), daemon=True).start()
    with contextlib.suppress(OSError):
        while data := agent.recv(PIECE):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    return 0


def _send_stdin(agent: socket.socket) -> None:
    with contextlib.suppress(OSError), os.fdopen(0, "rb", buffering=PIECE) as stdin:
        while len(head := stdin.read(4)) == 4:
            if length := int.from_bytes(head, "big"):
                agent.sendall(stdin.read(length))
            else:
                agent.shutdown(socket.SHUT_WR)
    os._exit(0)
