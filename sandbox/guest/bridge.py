"""The bridge of stdin and stdout to the guest agent's socket, for `docker exec -i`.

It runs no event loop: a process of its own for each connection must start quickly.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading

PIECE = 64 * 1024


def bridge(path: str) -> int:
    """Copy stdin to the socket and what it answers to stdout, until either side closes. The exit status.

    Stdin comes in frames of 4 bytes of length (big endian) and as many bytes. A length of 0 ends what is sent, while an
    end of stdin ends the connection: behind an exec the two could not be told apart otherwise.
    """
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        guest.connect(path)
    except OSError as error:
        os.write(2, f"the agent does not answer on {path}: {error.strerror}\n".encode())
        return 1
    threading.Thread(target=_send_stdin, args=(guest,), daemon=True).start()
    with contextlib.suppress(OSError):
        while data := guest.recv(PIECE):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    return 0


def _send_stdin(guest: socket.socket) -> None:
    with contextlib.suppress(OSError), os.fdopen(0, "rb", buffering=PIECE) as stdin:
        while len(head := stdin.read(4)) == 4:
            if length := int.from_bytes(head, "big"):
                guest.sendall(stdin.read(length))
            else:
                guest.shutdown(socket.SHUT_WR)
    os._exit(0)
