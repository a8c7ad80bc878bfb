"""A terminal in a container, over a WebSocket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from sandbox.client.config import ClientConfig
from sandbox.client.errors import ConnectionFailed, api_error

#: The service closes a terminal whose client sends longer frames.
_FRAME_BYTES = 32 * 1024


class Terminal:
    """An open terminal. Iterating over it yields its output as bytes, until the shell ends."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        """Send keyboard input, in frames that the service accepts."""
        for start in range(0, len(data), _FRAME_BYTES):
            await self._connection.send(data[start : start + _FRAME_BYTES])

    async def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size, in characters."""
        await self._connection.send(json.dumps({"resize": [columns, rows]}))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for frame in self._connection:
                if isinstance(frame, bytes):
                    yield frame
        except ConnectionClosed:
            return


@asynccontextmanager
async def open_terminal(
    config: ClientConfig, session_path: str, role: str | None, columns: int, rows: int
) -> AsyncIterator[Terminal]:
    """Open a terminal for the block. Raises ApiError and ConnectionFailed."""
    query = f"?{urlencode({'role': role})}" if role else ""
    url = f"{config.websocket_url}{session_path}/terminal{query}"
    try:
        trusted = config.tls() if url.startswith("wss:") else None
        connection = await connect(url, additional_headers=config.headers, max_size=None, open_timeout=15, ssl=trusted)
    except InvalidStatus as error:
        raise _refusal(error) from error
    except (OSError, TimeoutError) as error:
        raise ConnectionFailed(config.base_url, str(error) or "no answer") from error
    async with connection:
        terminal = Terminal(connection)
        await terminal.resize(columns, rows)
        yield terminal


def _refusal(error: InvalidStatus) -> Exception:
    response = error.response
    try:
        problem = json.loads(response.body or b"{}")
    except ValueError:
        problem = {}
    return api_error(response.status_code, problem, response.headers.get("X-Request-ID"))
