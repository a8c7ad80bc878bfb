"""A terminal in a sandbox over a WebSocket.

A client that names its terminal gets it back after a lost connection, also after a restart of this service: the guest
agent keeps it. The client counts the bytes that it has received, so that nothing is lost or shown twice.
"""

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

#: Codes with which a WebSocket is closed, as RFC 6455 names them, and one of our own.
NORMAL, LOST, FAILED, TAKEN_OVER = 1000, 1006, 1011, 4000
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
    terminal: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_-]{8,64}$")] = None,
    after: Annotated[int, Query(ge=0)] = 0,
) -> None:
    """Open a terminal. Binary frames carry terminal bytes both ways, at most 64 KiB each from the client; text frames
    are `{"resize": [columns, rows]}`.

    With `terminal`, a random name that the client chooses, the terminal is kept for ten minutes when the connection is
    lost, and a connection with the same name goes on with it. Such a connection begins with the text frame
    `{"position": N}`: the output begins N bytes after the terminal's start. That is `after`, the number of bytes that
    the client has, unless the terminal is a new one or has printed more meanwhile than is stored. Closing the WebSocket
    with code 1000 closes the terminal. The service closes it with 1000 when the shell has ended, with 4000 when another
    connection has the terminal now, and with 1011 when the guest agent does not answer any more.

    Secrets are not redacted: a terminal shows what is typed as well, in pieces and with cursor movement, and clients
    count its bytes.
    """
    guest, env, _ = await services.sessions.commands(caller, session_id, role)
    pty = await guest.pty(env=env, terminal=terminal, after=after)
    is_closed = False
    try:
        await websocket.accept()
        if terminal is not None:
            await websocket.send_text(json.dumps({"position": pty.position}))
        output = asyncio.create_task(_send_output(pty, websocket, services.sessions, session_id))
        input_ = asyncio.create_task(_receive_input(pty, websocket, services.sessions, session_id))
        done, rest = await asyncio.wait({output, input_}, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*done, *rest, return_exceptions=True)
        is_closed = input_ in done and input_.exception() is None and input_.result() == NORMAL
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(_closing_code(pty))
    finally:
        await (pty.close() if terminal is None or is_closed else pty.leave())


def _closing_code(pty: PtySession) -> int:
    if pty.is_taken_over:
        return TAKEN_OVER
    return FAILED if pty.exit_code is None else NORMAL


async def _send_output(pty: PtySession, websocket: WebSocket, sessions: SessionService, session_id: UUID) -> None:
    while data := await pty.read():
        sessions.touch(session_id)
        await websocket.send_bytes(data)


async def _receive_input(pty: PtySession, websocket: WebSocket, sessions: SessionService, session_id: UUID) -> int:
    """Pass on what the client types until it has disconnected. Return the code with which it did."""
    with contextlib.suppress(GuestError):
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or LOST)
            sessions.touch(session_id)
            if (data := message.get("bytes")) is not None:
                await pty.write(data)
            elif (size := _resize(message.get("text") or "")) is not None:
                await pty.resize(*size)
    return LOST


def _resize(text: str) -> tuple[int, int] | None:
    """The size that a text frame requests; None if it is not such a request or is out of range."""
    try:
        columns, rows = json.loads(text)["resize"]
    except (ValueError, KeyError, TypeError):
        return None
    if not (isinstance(columns, int) and isinstance(rows, int)):
        return None
    return (columns, rows) if 0 < columns <= MAX_SIZE and 0 < rows <= MAX_SIZE else None
