"""The app behind the preview tests: an ASGI application with one handler for each path and kind of request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl


@dataclass
class Upstream:
    """The sandboxed app. It records the requests and the progress of streams for the tests."""

    seen: list[dict[str, Any]] = field(default_factory=list)
    produced: int = 0
    received: int = 0
    cancelled: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        self.seen.append(scope)
        name = scope["path"].strip("/").replace("-", "_") or "index"
        handler = getattr(self, f"{'ws' if scope['type'] == 'websocket' else 'on'}_{name}", self.on_index)
        try:
            await handler(scope, receive, send)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _start(self, send: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def _reply(self, send: Any, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        await self._start(send, status, (b"content-length", str(len(body)).encode()), *headers)
        await send({"type": "http.response.body", "body": body})

    async def on_index(self, scope: Any, receive: Any, send: Any) -> None:
        await self._reply(send, b"hello from the app", 200, (b"content-type", b"text/plain"), (b"x-app", b"1"))

    async def on_echo(self, scope: Any, receive: Any, send: Any) -> None:
        more, total, sample = True, 0, b""
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.cancelled += 1
                return
            total += len(message.get("body", b""))
            self.received = total
            sample = (sample + message.get("body", b""))[:64]
            more = message.get("more_body", False)
        await self._reply(send, f"{scope['method']} {total} ".encode() + sample)

    async def on_two_halves(self, scope: Any, receive: Any, send: Any) -> None:
        await self._start(send)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await self.gate.wait()
        await send({"type": "http.response.body", "body": b"second"})

    async def on_events(self, scope: Any, receive: Any, send: Any) -> None:
        await self._start(send, 200, (b"content-type", b"text/event-stream"))
        for number in range(3):
            await send({"type": "http.response.body", "body": f"data: {number}\n\n".encode(), "more_body": True})
            if number == 0:
                await self.gate.wait()
        await send({"type": "http.response.body", "body": b""})

    async def on_forever(self, scope: Any, receive: Any, send: Any) -> None:
        await self._start(send)
        sender = asyncio.create_task(self._pump(send, 1 << 40))
        while (await receive())["type"] != "http.disconnect":
            pass
        sender.cancel()
        self.cancelled += 1

    async def on_waits(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.cancelled += 1

    async def on_large(self, scope: Any, receive: Any, send: Any) -> None:
        await self._start(send, 200, (b"content-length", str(100 * 1024 * 1024).encode()))
        await self._pump(send, 100 * 1024 * 1024)
        await send({"type": "http.response.body", "body": b""})

    async def _pump(self, send: Any, total: int) -> None:
        self.produced = 0
        block = bytes(range(256)) * 1024
        while self.produced < total:
            await send({"type": "http.response.body", "body": block, "more_body": True})
            self.produced += len(block)

    async def on_headers(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers with the headers that the query names."""
        pairs = parse_qsl(scope["query_string"], keep_blank_values=True)
        await self._reply(send, b"", 200, *((name.lower(), value) for name, value in pairs))

    async def on_nothing(self, scope: Any, receive: Any, send: Any) -> None:
        await self._start(send, 204)
        await send({"type": "http.response.body", "body": b""})

    async def on_same(self, scope: Any, receive: Any, send: Any) -> None:
        await self._start(send, 304, (b"etag", b'"v1"'))
        await send({"type": "http.response.body", "body": b""})

    async def on_away(self, scope: Any, receive: Any, send: Any) -> None:
        await self._reply(
            send,
            b"",
            302,
            (b"location", b"http://elsewhere.example/x"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        )

    async def on_zipped(self, scope: Any, receive: Any, send: Any) -> None:
        await self._reply(send, b"not really gzip \x00\xff", 200, (b"content-encoding", b"gzip"))

    async def on_theft(self, scope: Any, receive: Any, send: Any) -> None:
        await self._reply(send, b"", 200, (b"set-cookie", b"__sbx_preview=evil; Path=/"), (b"set-cookie", b"mine=1"))

    async def on_breaks(self, scope: Any, receive: Any, send: Any) -> None:
        await self._start(send)
        await send({"type": "http.response.body", "body": b"part", "more_body": True})

    async def ws_echo(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        offered = scope["subprotocols"]
        await send(
            {
                "type": "websocket.accept",
                "subprotocol": offered[-1] if offered else None,
                "headers": [(b"set-cookie", b"ws=1")],
            }
        )
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.seen.append({"closed": message.get("code"), "reason": message.get("reason")})
                return
            if (text := message.get("text")) and text.startswith("close "):
                await send({"type": "websocket.close", "code": int(text[6:]), "reason": "as asked"})
                return
            await send({"type": "websocket.send", "text": text, "bytes": message.get("bytes")})

    async def ws_refuse(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]})
        await send({"type": "websocket.http.response.body", "body": b"not you"})
