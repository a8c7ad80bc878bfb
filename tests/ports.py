"""TCP ports for servers that tests start as processes of their own, and so cannot bind to port 0."""

from __future__ import annotations

import socket
from errno import EADDRINUSE

#: Below the range from which Linux gives ports to outgoing connections, so that a server which was stopped always gets
#: its port back when it is started again.
PORTS = range(20_000, 30_000)

_reservations: list[socket.socket] = []


def reserve_port() -> int:
    """Return a loopback port that no other test on this machine gets until this process has ended.

    Test processes that run at the same time reserve ports by names of abstract unix sockets, which the kernel frees
    when the process ends. The port itself stays unbound for the server.

    Raises:
        RuntimeError: Every port of the range is in use.
    """
    for port in PORTS:
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0sandbox-test-port-{port}")
            _check_unbound(port)
        except OSError as error:
            reservation.close()
            if error.errno != EADDRINUSE:
                raise
        else:
            _reservations.append(reservation)
            return port
    raise RuntimeError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def _check_unbound(port: int) -> None:
    """Raise OSError (EADDRINUSE) if a server that is not ours has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
