"""A terminal in a container, over a WebSocket."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from sandbox.client.config import ClientConfig
from sandbox.client.errors import ApiError, ConnectionFailed, api_error
from sandbox.client.transport import TEMPORARY_STATUSES, Backoff

#: The service closes a terminal whose client sends longer frames.
_FRAME_BYTES = 32 * 1024
#: How long a lost connection is tried again.
RECONNECT_SECONDS = 60.0
#: Codes of a closed WebSocket after which there is nothing to connect to: the shell has ended, or another connection
#: has the terminal.
_OVER = (1000, 4000)


class Terminal:
    """An open terminal. Iterating over it yields its output as bytes, until the shell ends.

    If the connection is lost, also by a restart of the service, it is made again, and nothing of the output is lost.
    """

    def __init__(self, connect: Callable[[int], Awaitable[ClientConnection]]) -> None:
        """`connect` makes a connection that goes on after a number of received bytes."""
        self._connect = connect
        self._received = 0
        self._size: tuple[int, int] | None = None
        self._connection: ClientConnection | None = None
        #: Set while there is a connection.
        self._connected = asyncio.Event()

    async def open(self) -> None:
        """Make the first connection. Raises ApiError and ConnectionFailed."""
        self._connection = await self._connect(0)
        self._connected.set()

    async def close(self) -> None:
        """Close the shell."""
        if self._connection is not None:
            await self._connection.close()

    async def send(self, data: bytes) -> None:
        """Send keyboard input, in frames that the service accepts."""
        for start in range(0, len(data), _FRAME_BYTES):
            await self._send(data[start : start + _FRAME_BYTES])

    async def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size, in characters."""
        self._size = columns, rows
        await self._send(json.dumps({"resize": self._size}))

    async def _send(self, frame: bytes | str) -> None:
        """Send a frame, once there is a connection. One that is sent while the connection breaks is lost."""
        await self._connected.wait()
        if self._connection is not None:
            with suppress(ConnectionClosed):
                await self._connection.send(frame)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._connection is not None:
            with suppress(ConnectionClosed):
                async for frame in self._connection:
                    if isinstance(frame, bytes):
                        self._received += len(frame)
                        yield frame
                    else:
                        self._received = int(json.loads(frame)["position"])
            if self._connection.close_code in _OVER:
                return
            self._connected.clear()
            await self._reconnect()

    async def _reconnect(self) -> None:
        """Raises the last error after `RECONNECT_SECONDS` without success."""
        patience = Backoff(RECONNECT_SECONDS)
        while True:
            try:
                self._connection = await self._connect(self._received)
            except (ConnectionFailed, ApiError) as error:
                is_temporary = isinstance(error, ConnectionFailed) or error.status in TEMPORARY_STATUSES
                if not is_temporary or not await patience.wait():
                    raise
            else:
                break
        self._connected.set()
        if self._size is not None:
            await self.resize(*self._size)


@asynccontextmanager
async def open_terminal(
    config: ClientConfig, session_path: str, role: str | None, columns: int, rows: int
) -> AsyncIterator[Terminal]:
    """Open a terminal for the block. Raises ApiError and ConnectionFailed."""
    query = {"terminal": secrets.token_hex(16), **({"role": role} if role else {})}

    async def connected(after: int) -> ClientConnection:
        url = f"{config.websocket_url}{session_path}/terminal?{urlencode({**query, 'after': after})}"
        trusted = config.tls() if url.startswith("wss:") else None
        try:
            return await connect(url, additional_headers=config.headers, max_size=None, open_timeout=15, ssl=trusted)
        except InvalidStatus as error:
            raise _refusal(error) from error
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise ConnectionFailed(config.base_url, str(error) or "no answer") from error

    terminal = Terminal(connected)
    await terminal.open()
    try:
        await terminal.resize(columns, rows)
        yield terminal
    finally:
        await terminal.close()


def _refusal(error: InvalidStatus) -> Exception:
    response = error.response
    try:
        problem = json.loads(response.body or b"{}")
    except ValueError:
        problem = {}
    return api_error(response.status_code, problem, response.headers.get("X-Request-ID"))
