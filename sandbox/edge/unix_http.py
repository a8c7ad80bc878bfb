"""A request over a unix socket. The client is the standard library's because httpx leaves sockets of failed attempts
open, and the edge is asked again and again while it is away."""

from __future__ import annotations

import http.client
import socket
from contextlib import closing
from pathlib import Path

from sandbox.edge.folder import short_address


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(self.timeout)
            with short_address(self._path) as address:
                opened.connect(address)
        except BaseException:
            opened.close()
            raise
        self.sock = opened


def ask(path: Path, method: str, target: str, body: str | None = None, *, timeout: float) -> tuple[int, str]:
    """Status and text of the answer to one request. Blocks. Raises OSError if there is no whole answer."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    with closing(_UnixConnection(path, timeout)) as connection:
        try:
            connection.request(method, target, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise ConnectionError(f"no whole answer: {error!r}") from error
