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
from sandbox.engine.base import PtySession
from sandbox.errors import GuestError
from sandbox.sessions.service import SessionService

router = APIRouter(prefix="/api/v1/sessions", tags=["terminal"])

MOST_COLUMNS = 1000


@router.websocket("/{session_id}/terminal")
async def terminal(
    websocket: WebSocket,
    session_id: UUID,
    caller: CurrentCaller,
    services: Injected,
    role: Annotated[str | None, Query(max_length=31)] = None,
) -> None:
    """Binary frames are terminal bytes both ways, text frames `{"resize": [columns, rows]}`."""
    guest, _ = await services.sessions.guest(caller, session_id, role)
    pty = await guest.pty()
    try:
        await websocket.accept()
        shown = asyncio.create_task(_show(pty, websocket, services.sessions, session_id))
        typed = asyncio.create_task(_type(pty, websocket, services.sessions, session_id))
        done, rest = await asyncio.wait({shown, typed}, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*done, *rest, return_exceptions=True)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close()
    finally:
        await pty.close()


async def _show(pty: PtySession, websocket: WebSocket, sessions: SessionService, session_id: UUID) -> None:
    while data := await pty.read():
        sessions.touch(session_id)
        await websocket.send_bytes(data)


async def _type(pty: PtySession, websocket: WebSocket, sessions: SessionService, session_id: UUID) -> None:
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
    """The size a text frame asks for; None for anything else."""
    try:
        columns, rows = json.loads(text)["resize"]
    except (ValueError, KeyError, TypeError):
        return None
    if not (isinstance(columns, int) and isinstance(rows, int)):
        return None
    return (columns, rows) if 0 < columns <= MOST_COLUMNS and 0 < rows <= MOST_COLUMNS else None
