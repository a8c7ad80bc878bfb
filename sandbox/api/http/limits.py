"""The limit on request bodies. Uploads have limits of their own, in their routes.

FastAPI's `max_body_size` is not used because it answers in plain text, while all errors here are problem documents.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox.api.http.problems import render
from sandbox.errors import Kind, SandboxError

#: Routes whose body is a file, not JSON.
_UPLOADS = re.compile(
    r"^(PUT /api/v1/(projects/[^/]+|sessions/[^/]+/files)"
    r"|POST (/v1/(traces|logs)|/api/v1/(test-results/junit|coverage/(cobertura|coverage-py))))$"
)


class BodyTooLarge(SandboxError):
    """The body exceeds the limit."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"the body is larger than {max_bytes:,} bytes", hint="Send less, or raise SANDBOX_MAX_BODY_KB."
        )


class BodyLimit:
    """Middleware that refuses larger bodies: by Content-Length, else while the body is read."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _UPLOADS.match(f"{scope['method']} {scope['path']}"):
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            await render(BodyTooLarge(self._max_bytes))(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise BodyTooLarge(self._max_bytes)
            return message

        await self._app(scope, counted, send)
