"""A small HTTP service that implements the parts of the API the SDK uses. It can be stopped and started again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
import uvicorn
from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.responses import JSONResponse, Response, StreamingResponse

from sandbox.client import ClientConfig
from tests.ports import reserve_port

SESSION_ID = "3f2a0000-0000-4000-8000-000000000001"


@dataclass
class Peer:
    """The peer's sessions and the requests it received. They are kept when it is stopped, as in a database."""

    port: int
    events: list[dict[str, Any]] = field(default_factory=list)
    status: str = "creating"
    error: dict[str, Any] | None = None
    #: After how many events each of the first connections is closed.
    cuts: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    exec_events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    #: Further sessions. Lists have one session per page.
    others: list[dict[str, Any]] = field(default_factory=list)
    #: The names of terminals, and the positions after which they were connected to.
    terminals: list[tuple[str, int]] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)
    _server: uvicorn.Server | None = None
    _task: asyncio.Task[None] | None = None

    @property
    def config(self) -> ClientConfig:
        return ClientConfig(f"http://127.0.0.1:{self.port}", "secret-token")

    def session(self) -> dict[str, Any]:
        return {
            "session_id": SESSION_ID, "user_id": "u", "project_id": "p", "status": self.status,
            "runtime_type": "python312", "containers": {"main": {"id": "c", "status": "running"}},
            "preview_port": 5173, "preview_url": "http://x.preview.localhost/?t=1", "pipeline_stage": None,
            "created_at": "2026-11-23T10:00:00Z", "error": self.error,
        }  # fmt: skip

    def add(self, kind: str, **data: Any) -> None:
        seq = len(self.events) + 1
        common = {"seq": seq, "session_id": SESSION_ID, "run_id": "r1", "time": "2026-11-23T10:00:00Z"}
        self.events.append({"type": kind, **common, **data})

    async def start(self) -> None:
        config = uvicorn.Config(_app(self), host="127.0.0.1", port=self.port, log_level="critical", lifespan="off")
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._task = asyncio.create_task(self._server._serve())
        while not self._server.started:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.force_exit = True
            self._server.should_exit = True
            await self._task
            self._server = None


def _frame(kind: str, data: dict[str, Any]) -> bytes:
    identity = f"id: {data['seq']}\n" if "seq" in data else ""
    return f"{identity}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def _app(peer: Peer) -> FastAPI:
    app = FastAPI()
    base = f"/api/v1/sessions/{SESSION_ID}"

    @app.middleware("http")
    async def record(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        peer.asked.append((request.method, request.url.path, dict(request.headers)))
        if peer.refuse:
            return JSONResponse({"code": "restarting", "detail": "not now"}, peer.refuse.pop(0))
        return await call_next(request)

    @app.get(base)
    async def get() -> dict[str, Any]:
        return peer.session()

    @app.get("/api/v1/sessions")
    async def list_sessions(limit: int, cursor: str | None = None) -> dict[str, Any]:
        everything = [peer.session(), *peer.others]
        at = int(cursor or 0)
        more = at + 1 < len(everything)
        return {"items": everything[at : at + 1], "next_cursor": str(at + 1) if more else None}

    @app.post("/api/v1/sessions", status_code=202)
    async def create(request: Request) -> dict[str, Any]:
        peer.bodies.append(await request.body())
        peer.keys.append(request.headers["Idempotency-Key"])
        return peer.session()

    @app.put("/api/v1/projects/{project_id}", status_code=201)
    async def upload(project_id: str, request: Request) -> dict[str, Any]:
        peer.bodies.append(await request.body())
        return {"project_id": project_id, "digest": "d", "files": 1, "size_bytes": 1, "plan": {}}

    @app.get(f"{base}/events")
    async def events(request: Request) -> Response:
        last = int(request.headers.get("Last-Event-ID") or 0)
        over = bool(peer.events) and peer.events[-1]["type"] == "end"
        if over and last >= len(peer.events):
            return Response(status_code=204)
        cut = peer.cuts.pop(0) if peer.cuts else None

        async def body() -> AsyncIterator[bytes]:
            sent, at = 0, last
            yield b": heartbeat\n\n"
            while cut is None or sent < cut:
                if at < len(peer.events):
                    event = peer.events[at]
                    yield _frame(event["type"], {k: v for k, v in event.items() if k != "type"})
                    at, sent = at + 1, sent + 1
                    if event["type"] == "end":
                        return
                else:
                    await asyncio.sleep(0.01)

        return StreamingResponse(body(), media_type="text/event-stream")

    @app.get(f"{base}/logs")
    async def logs() -> Response:
        lines = [_frame("log", {"seq": n, "role": "main", "stream": "stdout", "line": f"line {n}"}) for n in (1, 2)]
        return Response(b"".join([*lines, _frame("end", {})]), media_type="text/event-stream")

    @app.post(f"{base}/exec")
    async def execute(request: Request) -> Response:
        peer.bodies.append(await request.body())
        if request.headers.get("Accept") == "text/event-stream":
            return Response(b"".join(_frame(*e) for e in peer.exec_events), media_type="text/event-stream")
        result = {"exit_code": 3, "stdout": "o", "stderr": "e", "duration_ms": 5, "timed_out": False, "truncated": True}
        return JSONResponse(result)

    @app.websocket(f"{base}/terminal")
    async def terminal(websocket: WebSocket, terminal: str, after: int) -> None:
        """Echo input in upper case, print changes of the size, lose the connection at `x`, and end at `q`."""
        assert websocket.headers["Authorization"] == "Bearer secret-token"
        peer.terminals.append((terminal, after))
        await websocket.accept()
        await websocket.send_text(json.dumps({"position": after}))
        while True:
            message = await websocket.receive()
            if message.get("text"):
                columns, rows = json.loads(message["text"])["resize"]
                await websocket.send_bytes(f"[{columns}x{rows}]".encode())
            elif message.get("bytes"):
                await websocket.send_bytes(message["bytes"].upper())
                if b"x" in message["bytes"]:
                    await websocket.close(1011)
                    return
                if b"q" in message["bytes"]:
                    break
            else:
                return
        await websocket.close()

    @app.get(f"{base}/files")
    async def read(path: str) -> Response:
        if path == ".":
            items = [{"path": p, "type": "file", "size": len(c), "mode": "0644"} for p, c in peer.files.items()]
            return JSONResponse({"items": items, "next_cursor": None})
        if path not in peer.files:
            problem = {"code": "file_not_found", "detail": f"{path} is not there", "hint": "look", "request_id": "rq"}
            return JSONResponse(problem, 404, media_type="application/problem+json")
        return Response(peer.files[path], media_type="application/octet-stream")

    @app.get(f"{base}/files/archive")
    async def archive(path: str, exclude: Annotated[list[str], Query()]) -> Response:
        if path != ".":
            return JSONResponse({"code": "file_not_found", "detail": f"{path} is not there"}, 404)
        return Response(f"without {' '.join(exclude)}".encode(), media_type="application/gzip")

    @app.put(f"{base}/files", status_code=204)
    async def write(path: str, request: Request) -> None:
        peer.files[path] = await request.body()

    @app.delete(f"{base}/files", status_code=204)
    async def remove(path: str) -> None:
        peer.files.pop(path, None)

    @app.delete(base, status_code=204)
    async def terminate() -> None:
        peer.status = "terminated"

    return app


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    found = Peer(reserve_port())
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def launched(peer: Peer) -> Peer:
    """A peer with a session whose launch has finished."""
    for index, stage in enumerate(("plan", "network", "containers", "workspace"), 1):
        peer.add("stage", stage=stage, state="started", index=index, total=4)
        peer.add("log", stage=stage, role="main", stream="stdout", line=f"doing {stage}")
        peer.add("stage", stage=stage, state="completed", index=index, total=4, duration_ms=5)
    peer.add("status", status="ready", previous="creating")
    peer.add("end", status="ready")
    peer.status = "ready"
    return peer
