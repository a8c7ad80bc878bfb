"""Bodies that are read whole into memory, no more of them than is taken."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sandbox.errors import InvalidInput, Kind, SandboxError
from sandbox.records.otlp.messages import unpack


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


async def read_unpacked(request: Request, most: int) -> bytes:
    """The body without its `Content-Encoding` (gzip, deflate), no more than `most` bytes of it. Raises as `unpack`."""
    return unpack(await read_body(request, most), request.headers.get("content-encoding", ""), most)


async def read_parts(request: Request, most: int, *names: str) -> list[bytes | None]:
    """The parts of a form of these names, or, where it is no form, the body as the first of them.

    Raises InvalidInput for a form that is none or lacks the first part.
    """
    body = await read_unpacked(request, most)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return [body, *(None for _ in names[1:])]

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, whole(), max_files=len(names), max_fields=len(names), max_part_size=len(body) + 1
    )
    parser.spool_max_size = most
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
