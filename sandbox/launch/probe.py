"""An HTTP health probe of an app, through the guest agent's tunnel."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sandbox.engine.guest import Guest
from sandbox.errors import GuestError

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe. `detail` says for people what came back.

    `healthy` means a status below 500, or an open port that does not speak HTTP at all.
    """

    connected: bool
    healthy: bool
    detail: str


async def probe(guest: Guest, port: int, path: str) -> ProbeResult:
    """Send `GET path` to the app on a port of the container's loopback address and classify the status line.

    This needs no HTTP client: only the status line is read, redirects are not followed, and a server that answers in
    another protocol counts as healthy. Raises GuestError if the guest agent does not answer.
    """
    try:
        sock = await guest.tunnel(port)
    except GuestError as error:
        if error.code == "port_not_open":
            return ProbeResult(connected=False, healthy=False, detail="nothing listens there")
        raise
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nAccept: */*\r\n\r\n".encode()
        )
        async with asyncio.timeout(TIMEOUT_SECONDS):
            line = await reader.readline()
    except (TimeoutError, ValueError):
        return ProbeResult(connected=True, healthy=False, detail=f"no answer in {TIMEOUT_SECONDS:.0f} s")
    except OSError as error:
        return ProbeResult(connected=True, healthy=False, detail=f"the connection broke: {error}")
    finally:
        writer.close()
    return _classify(line)


def _classify(status_line: bytes) -> ProbeResult:
    if not status_line:
        return ProbeResult(connected=True, healthy=False, detail="the connection was closed without an answer")
    parts = status_line.split(b" ", 2)
    if not status_line.startswith(b"HTTP/") or len(parts) < 2 or not parts[1].isdigit():
        return ProbeResult(connected=True, healthy=True, detail="it does not speak HTTP")
    status = int(parts[1])
    return ProbeResult(connected=True, healthy=status < 500, detail=f"status {status}")
