"""One HTTP question to an app through the guest agent's tunnel."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sandbox.engine.base import Guest
from sandbox.errors import GuestError

SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `healthy`: a status below 500, or an open port that does not speak HTTP at all."""

    connected: bool
    healthy: bool
    what: str


async def probe(guest: Guest, port: int, path: str) -> Answer:
    """Ask the app on a port for a path. One status line is all that is wanted, hence no HTTP client: it reads no body,
    follows nothing, and takes a server that speaks another protocol for what it is."""
    try:
        sock = await guest.tunnel(port)
    except GuestError as error:
        if error.code == "port_not_open":
            return Answer(connected=False, healthy=False, what="nothing listens there")
        raise
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nAccept: */*\r\n\r\n".encode()
        )
        async with asyncio.timeout(SECONDS):
            line = await reader.readline()
    except (TimeoutError, ValueError):
        return Answer(connected=True, healthy=False, what=f"no answer in {SECONDS:.0f} s")
    except OSError as error:
        return Answer(connected=True, healthy=False, what=f"the connection broke: {error}")
    finally:
        writer.close()
    return _judge(line)


def _judge(line: bytes) -> Answer:
    if not line:
        return Answer(connected=True, healthy=False, what="the connection was closed without an answer")
    parts = line.split(b" ", 2)
    if not line.startswith(b"HTTP/") or len(parts) < 2 or not parts[1].isdigit():
        return Answer(connected=True, healthy=True, what="it does not speak HTTP")
    status = int(parts[1])
    return Answer(connected=True, healthy=status < 500, what=f"status {status}")
