"""Files in a session's containers."""

from __future__ import annotations

from typing import Literal, overload

import httpx

from sandbox.client.errors import SandboxError
from sandbox.client.models import FileEntry
from sandbox.client.transport import Transport


class AsyncFiles:
    """`sandbox.files`. Relative paths are below `/workspace`; `role` is the container, by default the first."""

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
        format: Literal["text", "bytes"] = "text",  # noqa: A002 - the name SDKs of this kind use
    ) -> str | bytes:
        """A file's content: UTF-8 text, or with `format="bytes"` as it is. Raises NotFoundError."""
        response = await self._transport.request("GET", self._path, params={"path": path, "role": role}, timeout=300.0)
        if _is_listing(response.headers):
            raise SandboxError(f"{path} is a folder", hint="Use files.list for it.", code="is_a_folder")
        return response.text if format == "text" else response.content

    async def write(self, path: str, data: str | bytes, *, role: str | None = None) -> None:
        """Write a file whole, atomically; missing parent folders are made."""
        content = data.encode() if isinstance(data, str) else data
        await self._transport.request(
            "PUT",
            self._path,
            params={"path": path, "role": role},
            content=content,
            headers={"Content-Type": "application/octet-stream"},
            timeout=300.0,
        )

    async def list(self, path: str = ".", *, role: str | None = None) -> list[FileEntry]:
        """What is in a folder. Raises NotFoundError; a file's path is an error."""
        response = await self._transport.request("GET", self._path, params={"path": path, "role": role})
        if not _is_listing(response.headers):
            raise SandboxError(f"{path} is a file", hint="Use files.read for it.", code="is_a_file")
        return [FileEntry.from_json(entry) for entry in response.json()["items"]]

    async def remove(self, path: str, *, role: str | None = None) -> None:
        """Remove a file, or a folder with all in it. Gone already is success."""
        await self._transport.request("DELETE", self._path, params={"path": path, "role": role})


def _is_listing(headers: httpx.Headers) -> bool:
    """A file comes as application/octet-stream whatever it holds; JSON is a folder's listing."""
    return str(headers.get("Content-Type", "")).startswith("application/json")
