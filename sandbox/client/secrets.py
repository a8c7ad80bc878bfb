"""Secrets of the caller: values that are kept by name, and that the environment of a session refers to.

Example:
    Secrets().set("api-key", "…")
    Sandbox.create("shop", env={"API_KEY": {"from_secret": "api-key"}})
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sandbox.client.aio import pages
from sandbox.client.bridge import run
from sandbox.client.config import ClientConfig, resolve
from sandbox.client.transport import Transport

_PATH = "/api/v1/secrets"


class AsyncSecrets:
    """The secrets of all the caller's projects, or those of one project."""

    def __init__(
        self,
        project_id: str | None = None,
        *,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> None:
        self._project = {"project_id": project_id} if project_id else {}
        self._config = config or resolve(base_url, token)

    async def set(self, name: str, value: str) -> dict[str, Any]:
        """Store a value, or replace it. It cannot be read again."""
        async with self._transport() as transport:
            body = {"value": value}
            return await transport.json("PUT", f"{_PATH}/{name}", params=self._project, body=body, repeatable=True)

    async def list(self) -> list[dict[str, Any]]:
        """The secrets by name, without their values."""
        async with self._transport() as transport:
            return [item async for item in pages(transport, _PATH, self._project)]

    async def remove(self, name: str) -> None:
        """Remove a secret. Sessions that have its value keep it until they end. Raises NotFoundError."""
        async with self._transport() as transport:
            await transport.request("DELETE", f"{_PATH}/{name}", params=self._project)

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Transport]:
        transport = Transport(self._config)
        try:
            yield transport
        finally:
            await transport.aclose()


class Secrets:
    """`AsyncSecrets` for callers without an event loop."""

    def __init__(
        self,
        project_id: str | None = None,
        *,
        base_url: str | None = None,
        token: str | None = None,
        config: ClientConfig | None = None,
    ) -> None:
        self._async = AsyncSecrets(project_id, base_url=base_url, token=token, config=config)

    def set(self, name: str, value: str) -> dict[str, Any]:
        return run(lambda: self._async.set(name, value))

    def list(self) -> list[dict[str, Any]]:
        return run(self._async.list)

    def remove(self, name: str) -> None:
        run(lambda: self._async.remove(name))
