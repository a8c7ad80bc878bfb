"""Taking request bodies: short ones into memory, uploads into files, each up to a limit."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from fastapi import Request

from sandbox.api.http.services import Services
from sandbox.db.tables import Row, Table
from sandbox.domain.caller import Caller
from sandbox.errors import Kind, SandboxError
from sandbox.records import store
from sandbox.records.reports.upload import Upload


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
    body = bytearray()
    async for chunk in _chunks(request, max_bytes, lambda: IntakeTooLarge(max_bytes)):
        body += chunk
    return bytes(body)


async def save_body(request: Request, target: Path, max_bytes: int, too_large: Callable[[], SandboxError]) -> None:
    """Write the body to a file. Raises what `too_large` makes, before it reads if there is a Content-Length."""
    async with await anyio.open_file(target, "wb") as file:
        async for chunk in _chunks(request, max_bytes, too_large):
            await file.write(chunk)


@asynccontextmanager
async def received_report(request: Request, max_bytes: int) -> AsyncIterator[Upload]:
    """The body in a file that exists within the block. Raises IntakeTooLarge."""
    with tempfile.TemporaryDirectory(prefix="sandbox-report-") as folder:
        file = Path(folder) / "body"
        await save_body(request, file, max_bytes, lambda: IntakeTooLarge(max_bytes))
        headers = request.headers
        yield Upload(file, headers.get("content-type", ""), headers.get("content-encoding", ""), max_bytes)


async def store_report(
    services: Services, caller: Caller, table: Table, rows: Sequence[Mapping[str, Any]]
) -> list[Row]:
    """Store rows of a report. Raises SandboxError `storage_limit` if the caller has sent too much."""
    if not caller.is_admin:
        services.space.require(caller.user_id)
        services.space.add_rows(caller.user_id, rows)
    return await store.insert(services.db, table, rows)


async def _chunks(request: Request, max_bytes: int, too_large: Callable[[], SandboxError]) -> AsyncIterator[bytes]:
    length = request.headers.get("content-length", "0")
    if length.isdigit() and (len(length) > 18 or int(length) > max_bytes):
        raise too_large()
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise too_large()
        yield chunk
