"""OTLP exports of one container's apps, fetched over a long-lived connection.

`sandbox/guest/export_queue.py` is the other side and describes the frames.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

from sandbox.engine.guest_client.errors import unreachable
from sandbox.engine.guest_data import Export, ExportAnswer

_HEAD = struct.Struct(">II")
#: The guest agent sends a heartbeat every 60 seconds.
_SILENCE_SECONDS = 150.0
#: Longest pause in the middle of a frame, and longest time to send one.
_FRAME_SECONDS = 30.0
_PIECE = 256 * 1024
#: More than the guest agent's queue holds, headers included.
_FRAME_LIMIT = 32 * 1024 * 1024


class ExportsConnection:
    """Implements `base.Exports`. To be used by one task; not thread-safe."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._lengths: tuple[int, int] | None = None

    async def arrived(self) -> None:
        while self._lengths is None:
            json_length, bodies_length = _HEAD.unpack(await self._exactly(_HEAD.size, _SILENCE_SECONDS))
            if json_length + bodies_length > _FRAME_LIMIT:
                raise unreachable("it sent more than it may")
            if bodies_length or json_length > len("[]"):
                self._lengths = json_length, bodies_length
            else:
                await self._exactly(json_length, _FRAME_SECONDS)

    async def fetch(self) -> list[Export]:
        await self.arrived()
        if self._lengths is None:
            return []
        json_length, bodies_length = self._lengths
        self._lengths = None
        heads = json.loads(await self._exactly(json_length, _FRAME_SECONDS))
        bodies = await self._exactly(bodies_length, _FRAME_SECONDS)
        exports, at = [], 0
        for head in heads:
            body = bodies[at : at + head["length"]]
            at += len(body)
            exports.append(Export(head["id"], head["path"], head["type"], head["encoding"], head["token"], body))
        return exports

    async def answer(self, answers: Sequence[ExportAnswer]) -> None:
        heads: list[dict[str, Any]] = [
            {
                "id": answer.number,
                "status": answer.status,
                "type": answer.media_type,
                "retry_after": answer.retry_after,
                "length": len(answer.body),
            }
            for answer in answers
        ]
        text = json.dumps(heads, separators=(",", ":")).encode("ascii")
        bodies = b"".join(answer.body for answer in answers)
        try:
            async with asyncio.timeout(_FRAME_SECONDS):
                await self._loop.sock_sendall(self._sock, _HEAD.pack(len(text), len(bodies)) + text + bodies)
        except TimeoutError:
            raise unreachable("it does not read the answers") from None
        except OSError as error:
            raise unreachable(error.strerror or error) from error

    async def close(self) -> None:
        self._sock.close()

    async def _exactly(self, length: int, seconds: float) -> bytes:
        data = bytearray()
        try:
            while len(data) < length:
                async with asyncio.timeout(seconds):
                    piece = await self._loop.sock_recv(self._sock, min(length - len(data), _PIECE))
                if not piece:
                    raise unreachable("it hung up")
                data += piece
        except TimeoutError:
            raise unreachable(f"nothing received for {seconds} seconds") from None
        except OSError as error:
            raise unreachable(error.strerror or error) from error
        return bytes(data)
