"""Reads and writes files in a session's containers."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Collection, Mapping
from typing import IO, Literal, overload

import httpx

from sandbox.client.errors import ConnectionFailed, SandboxError
from sandbox.client.models import FileEntry
from sandbox.client.transport import Transport, raise_for_stream


class AsyncFiles:
    """The files of a session, as `sandbox.files`.

    Relative paths are below `/workspace`. `role` is the container, by default the session's first.
    """

    def __init__(self, transport: Transport, session_path: str) -> None:
        self._transport = transport
        self._path = f"{session_path}/files"

    @overload
    async def read(self, path: str, *, role: str | None = None, format: Literal["text"] = "text") -> str: ...
    @overload
    async def read(self, path: str, *, role: str | None = None, format: Literal["bytes"]) -> bytes: ...

    async def read(
        self,
        path: str,
        *,
        role: str | None = None,
        format: Literal["text", "bytes"] = "text",  # noqa: A002 - similar SDKs use this name
    ) -> str | bytes:
        """Return a file's content, as UTF-8 text or, with `format="bytes"`, as bytes. Raises NotFoundError."""
        response = await self._transport.request("GET", self._path, params={"path": path, "role": role}, timeout=300.0)
        if _is_listing(response.headers):
            raise SandboxError(f"{path} is a folder", hint="Use files.list instead.", code="is_a_folder")
        return response.text if format == "text" else response.content

    async def write(self, path: str, data: str | bytes, *, role: str | None = None) -> None:
        """Replace a file atomically. Missing parent folders are created."""
        content = data.encode() if isinstance(data, str) else data
        await self._transport.request(
            "PUT",
            self._path,
            params={"path": path, "role": role},
            content=content,
            headers={"Content-Type": "application/octet-stream"},
            timeout=300.0,
        )

    async def write_files(self, files: Mapping[str, str | bytes], path: str = ".", *, role: str | None = None) -> None:
        """Write many files with one request. Their names are relative to the folder `path`. Each is replaced as a
        whole; missing folders are created."""
        await self._transport.request(
            "PUT",
            f"{self._path}/archive",
            params={"path": path, "role": role},
            content=await asyncio.to_thread(_tar, files),
            headers={"Content-Type": "application/x-tar"},
            timeout=300.0,
        )

    async def list(self, path: str = ".", *, role: str | None = None) -> list[FileEntry]:
        """Return the entries of a folder. Raises NotFoundError, or SandboxError if the path is a file."""
        entries: list[FileEntry] = []
        cursor: str | None = ""
        while cursor is not None:
            params = {"path": path, "role": role, "cursor": cursor or None}
            response = await self._transport.request("GET", self._path, params=params)
            if not _is_listing(response.headers):
                raise SandboxError(f"{path} is a file", hint="Use files.read instead.", code="is_a_file")
            page = response.json()
            entries += [FileEntry.from_json(entry) for entry in page["items"]]
            cursor = page.get("next_cursor")
        return entries

    async def download(
        self, target: IO[bytes], path: str = ".", *, role: str | None = None, exclude: Collection[str] = ()
    ) -> int:
        """Write a folder with its content to `target`, as `.tar.gz`. Files and folders whose name is in `exclude` are
        left out. Return the number of bytes. Raises NotFoundError."""
        params = {"path": path, "role": role, "exclude": sorted(exclude)}
        size = 0
        try:
            async with self._transport.stream("GET", f"{self._path}/archive", params=params) as response:
                await raise_for_stream(response)
                async for piece in response.aiter_raw():
                    await asyncio.to_thread(target.write, piece)
                    size += len(piece)
        except httpx.TransportError as error:
            raise ConnectionFailed(self._transport.config.base_url, str(error) or type(error).__name__) from error
        return size

    async def remove(self, path: str, *, role: str | None = None) -> None:
        """Remove a file, or a folder and its content. Does nothing if it does not exist."""
        await self._transport.request("DELETE", self._path, params={"path": path, "role": role})


def _tar(files: Mapping[str, str | bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, data in files.items():
            content = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def _is_listing(headers: httpx.Headers) -> bool:
    """Return whether a response is a folder's listing. Files always have the type application/octet-stream."""
    return str(headers.get("Content-Type", "")).startswith("application/json")
