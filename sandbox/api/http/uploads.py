"""Reading request bodies into memory, up to a limit."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sandbox.errors import InvalidInput, Kind, SandboxError
from sandbox.records.otlp.messages import unpack


class IntakeTooLarge(SandboxError):
    """The body exceeds the limit."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE

    def __init__(self, max_bytes: int) -> None:
        super().__init__(
            f"The body is larger than {max_bytes:,} bytes.", hint="Send less, or raise SANDBOX_MAX_INTAKE_MB."
        )


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body. Raises IntakeTooLarge, before reading if the request has a Content-Length."""
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > max_bytes:
        raise IntakeTooLarge(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise IntakeTooLarge(max_bytes)
    return bytes(body)


async def read_unpacked(request: Request, max_bytes: int) -> bytes:
    """The body with its `Content-Encoding` (gzip, deflate) undone, up to `max_bytes` bytes. Raises like `unpack`."""
    return unpack(await read_body(request, max_bytes), request.headers.get("content-encoding", ""), max_bytes)


async def read_parts(request: Request, max_bytes: int, *names: str) -> list[bytes | None]:
    """The parts of a form by name. If the body is not a form, it is returned as the first part.

    Raises InvalidInput for a malformed form and for one without the first part.
    """
    body = await read_unpacked(request, max_bytes)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return [body, *(None for _ in names[1:])]

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, whole(), max_files=len(names), max_fields=len(names), max_part_size=len(body) + 1
    )
    parser.spool_max_size = max_bytes
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise InvalidInput(f"The form cannot be read: {error}.", hint="Send it as `curl -F` does.") from error
    parts: list[bytes | None] = []
    for name in names:
        part = form.get(name)
        parts.append(await part.read() if isinstance(part, UploadFile) else part.encode() if part is not None else None)
    await form.close()
    if parts[0] is None:
        raise InvalidInput(f"The form has no part {names[0]}.", hint=f"Send it as `curl -F {names[0]}=@FILE` does.")
    return parts
