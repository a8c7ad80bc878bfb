"""One ASGI call to the proxy, HTTP or WebSocket, and how to answer it in full."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from sandbox.preview.headers import Headers


@dataclass(frozen=True, slots=True)
class Call:
    """A request, or the handshake of a WebSocket."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str

    @property
    def is_http(self) -> bool:
        return bool(self.scope["type"] == "http")

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a complete response. A handshake is refused with the same response if the ASGI server supports that."""
        prefix = "http.response"
        if not self.is_http:
            if "websocket.http.response" not in (self.scope.get("extensions") or {}):
                await self.send({"type": "websocket.close", "code": 1008})
                return
            prefix = "websocket.http.response"
        await self.send({"type": f"{prefix}.start", "status": status, "headers": headers})
        await self.send({"type": f"{prefix}.body", "body": b"" if self.scope.get("method") == "HEAD" else body})
