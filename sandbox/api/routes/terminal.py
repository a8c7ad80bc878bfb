"""A terminal in a sandbox over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected
from sandbox.engine.guest import PtySession
from sandbox.errors import GuestError
from sandbox.sessions.service import SessionService

router = APIRouter(prefix="/api/v1/sessions", tags=["terminal"])

MAX_SIZE = 1000
#: Longest message that a client may send; a longer one closes the terminal with code 1009.
MAX_FRAME_BYTES = 64 * 1024


@router.websocket("/{session_id}/terminal")
async def terminal(
    websocket: WebSocket,
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    role: Annotated[str | None, Query(max_length=31)] = None,
) -> None:
    """Open a terminal. Binary frames carry terminal bytes both ways, at most 64 KiB each from the client; text frames
    are `{"resize": [columns, rows]}`."""
    guest, env = await services.sessions.commands(caller, session_id, role)
    pty = await guest.pty(env=env)
    try:
        await websocket.accept()
        output = asyncio.create_task(_send_output(pty, websocket, services.sessions, session_id))
        input_ = asyncio.create_task(_receive_input(pty, websocket, services.sessions, session_id))
        done, rest = await asyncio.wait({output, input_}, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*done, *rest, return_exceptions=True)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close()
    finally:
        await pty.close()


async def _send_output(pty: PtySession, websocket: WebSocket, sessions: SessionService, session_id: UUID) -> None:
    while data := await pty.read():
        sessions.touch(session_id)
        await websocket.send_bytes(data)


async def _receive_input(pty: PtySession, websocket: WebSocket, sessions: SessionService, session_id: UUID) -> None:
    with contextlib.suppress(WebSocketDisconnect, GuestError):
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            sessions.touch(session_id)
            if (data := message.get("bytes")) is not None:
                await pty.write(data)
            elif (size := _resize(message.get("text") or "")) is not None:
                await pty.resize(*size)


def _resize(text: str) -> tuple[int, int] | None:
    """The size that a text frame requests; None if it is not such a request or is out of range."""
    try:
        columns, rows = json.loads(text)["resize"]
    except (ValueError, KeyError, TypeError):
        return None
    if not (isinstance(columns, int) and isinstance(rows, int)):
        return None
    return (columns, rows) if 0 < columns <= MAX_SIZE and 0 < rows <= MAX_SIZE else None
