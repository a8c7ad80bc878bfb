"""Bodies that are read whole into memory, no more of them than is taken."""

from __future__ import annotations

from fastapi import Request

from sandbox.errors import Kind, SandboxError


class IntakeTooLarge(SandboxError):
    """The body is larger than is taken, as it is sent."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE

    def __init__(self, most: int) -> None:
        super().__init__(f"The body is larger than {most:,} bytes.", hint="Send less, or raise SANDBOX_MAX_INTAKE_MB.")


async def read_body(request: Request, most: int) -> bytes:
    """The body. Raises IntakeTooLarge, before it is read where its length is told."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > most:
        raise IntakeTooLarge(most)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise IntakeTooLarge(most)
    return bytes(body)
