"""A machine outside of the sandboxes: a network namespace with addresses of its own, in which a server listens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

PORT = 8123
#: Reserved for documentation, so nothing else has them. The firewall treats them as public.
PUBLIC, OTHER_PUBLIC = "198.51.100.7", "198.51.100.8"
#: The address at which clouds serve credentials, and one of a private network.
METADATA, PRIVATE = "169.254.169.254", "10.199.7.7"
_SERVER = f"""
import socket
listener = socket.create_server(("0.0.0.0", {PORT}))
while True:
    connection, _ = listener.accept()
    connection.sendall(b"reached")
    connection.close()
"""


@contextmanager
def machine_outside() -> Iterator[None]:
    """Run the server at all of the addresses above, which this machine routes to, for the block."""
    name = f"p8-{uuid4().hex[:8]}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", name, "up")
        _ip("addr", "add", "198.51.100.1/32", "dev", name)
        _ip("-n", name, "link", "set", "eth0", "up")
        _ip("-n", name, "link", "set", "lo", "up")
        for address in (PUBLIC, OTHER_PUBLIC, METADATA, PRIVATE):
            _ip("-n", name, "addr", "add", f"{address}/32", "dev", "eth0")
            _ip("route", "add", f"{address}/32", "dev", name)
        _ip("-n", name, "route", "add", "default", "dev", "eth0")
        server = subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-c", _SERVER])
        try:
            _await_server(name)
            yield
        finally:
            server.kill()
            server.wait()
    finally:
        _ip("netns", "del", name)


def _await_server(name: str) -> None:
    deadline = time.monotonic() + 20
    while (
        f":{PORT}"
        not in subprocess.run(
            ["ip", "netns", "exec", name, "ss", "-ltn"], capture_output=True, text=True, check=True
        ).stdout
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
