"""What runs in a sandbox: listing processes, and sending them signals."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict

from sandbox.api.http.auth import CurrentCaller
from sandbox.api.http.services import Injected

router = APIRouter(prefix="/api/v1/sessions", tags=["exec"])

Signal = Literal["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH"]
Role = Annotated[str | None, Query(max_length=31, description="The role whose container is meant")]


class ProcessView(BaseModel):
    """A process of a sandbox. `pid` and `ppid` are its numbers within the role's container."""

    role: str
    pid: int
    ppid: int
    command: str
    cpu_seconds: float
    memory_bytes: int
    started_at: datetime


class ProcessPage(BaseModel):
    items: list[ProcessView]
    next_cursor: str | None = None


class SignalRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    signal: Signal = "TERM"


@router.get("/{session_id}/processes", response_model=ProcessPage)
async def list_processes(session_id: UUID, caller: CurrentCaller, services: Injected, role: Role = None) -> ProcessPage:
    """The processes of all roles, or of one, oldest first; without those of the service. There is one page.

    It needs no new process in the container, so it also answers in a sandbox that has used up its processes.
    """
    found = await services.sessions.running_processes(caller, session_id, role)
    items = [
        ProcessView(
            role=name,
            pid=process.pid,
            ppid=process.ppid,
            command=process.command,
            cpu_seconds=process.cpu_seconds,
            memory_bytes=process.memory_bytes,
            started_at=datetime.fromtimestamp(process.started_at, UTC),
        )
        for name, processes in found.items()
        for process in processes
    ]
    return ProcessPage(items=items)


@router.post("/{session_id}/processes/{pid}/signal", status_code=204)
async def signal_process(
    session_id: UUID,
    pid: Annotated[int, Path(ge=1, le=2**31 - 1)],
    body: SignalRequest,
    caller: CurrentCaller,
    services: Injected,
    role: Role = None,
) -> None:
    """Send a signal to one process of a role's container, by default the first role's."""
    guest, _ = await services.sessions.guest(caller, session_id, role)
    await guest.signal_process(pid, signal.Signals[f"SIG{body.signal}"])
