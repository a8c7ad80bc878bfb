"""httpcore connections over sockets that something else has connected."""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import httpcore
from anyio.abc import SocketAttribute, SocketStream

#: Gives a connected socket for the host and port of a request's URL.
Connect = Callable[[str, int], Awaitable[socket.socket]]


class ConnectedStream(httpcore.AsyncNetworkStream):
    """A connected socket as httpcore reads and writes it.

    `coalesce_bytes` delays writes until that many bytes are waiting or an answer is read: httpcore writes the head,
    the body and the end of a request one by one, and the peer would wake up for each. With 0 nothing is delayed.
    """

    def __init__(self, stream: SocketStream, coalesce_bytes: int = 0) -> None:
        self._stream = stream
        self._coalesce_bytes = coalesce_bytes
        self._unsent = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await self._flush(timeout)
        try:
            with anyio.fail_after(timeout):
                return await self._stream.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except TimeoutError as error:
            raise httpcore.ReadTimeout(f"nothing received for {timeout} seconds") from error
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._unsent += buffer
        if len(self._unsent) >= self._coalesce_bytes:
            await self._flush(timeout)

    async def _flush(self, timeout: float | None) -> None:
        unsent, self._unsent = self._unsent, b""
        if not unsent:
            return
        try:
            with anyio.fail_after(timeout):
                await self._stream.send(unsent)
        except TimeoutError as error:
            raise httpcore.WriteTimeout(f"nothing could be sent for {timeout} seconds") from error
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        if info != "is_readable":
            return None
        # A peer that sends without being asked has closed the connection. httpcore checks this before it uses an idle
        # connection again.
        descriptor = self._stream.extra(SocketAttribute.raw_socket).fileno()  # noqa: S610
        if descriptor < 0:
            return True
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(0))


class ConnectBackend(httpcore.AsyncNetworkBackend):
    """Makes httpcore's connections by calling `connect` with the host and port of the URL."""

    def __init__(self, connect: Connect, coalesce_bytes: int = 0) -> None:
        self._connect = connect
        self._coalesce_bytes = coalesce_bytes

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        connected = await self._connect(host, port)
        return ConnectedStream(await SocketStream.from_socket(connected), self._coalesce_bytes)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
