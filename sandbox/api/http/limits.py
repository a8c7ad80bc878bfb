"""How large a request's body may be. Uploads have limits of their own, in their routes.

FastAPI's own `max_body_size` answers in plain text where the length is told; every error here is a problem document.
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
    """The body is larger than is taken."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE

    def __init__(self, most: int) -> None:
        super().__init__(f"the body is larger than {most:,} bytes", hint="Send less, or raise SANDBOX_MAX_BODY_KB.")


class BodyLimit:
    """Refuses a larger body before it is read where its length is told, and while it is read where not."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _UPLOADS.match(f"{scope['method']} {scope['path']}"):
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > self._most:
            await render(BodyTooLarge(self._most))(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise BodyTooLarge(self._most)
            return message

        await self._app(scope, counted, send)
