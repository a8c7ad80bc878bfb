"""The audit log: who did what to which session, project, token or secret (admin).

Example:
    for entry in Audit().list(user_id="alice", limit=20):
        print(entry["time"], entry["action"], entry["resource"], entry["outcome"])
"""

from __future__ import annotations

from typing import Any

from sandbox.client.aio import pages
from sandbox.client.bridge import run
from sandbox.client.config import ClientConfig, resolve
from sandbox.client.transport import Transport

_PATH = "/api/v1/audit"


class AsyncAudit:
    """Reads the audit log."""

    def __init__(
        self, *, base_url: str | None = None, token: str | None = None, config: ClientConfig | None = None
    ) -> None:
        self._config = config or resolve(base_url, token)

    async def list(
        self,
        *,
        user_id: str | None = None,
        action: str | None = None,
        resource: str | None = None,
        since: str | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """The newest entries that match, newest first: at most `limit`, not before the time `since` (RFC 3339)."""
        params = {"user_id": user_id, "action": action, "resource": resource, "from": since}
        transport = Transport(self._config)
        try:
            return [item async for item in pages(transport, _PATH, params, limit)]
        finally:
            await transport.aclose()


class Audit:
    """`AsyncAudit` for callers without an event loop."""

    def __init__(
        self, *, base_url: str | None = None, token: str | None = None, config: ClientConfig | None = None
    ) -> None:
        self._async = AsyncAudit(base_url=base_url, token=token, config=config)

    def list(
        self,
        *,
        user_id: str | None = None,
        action: str | None = None,
        resource: str | None = None,
        since: str | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        return run(
            lambda: self._async.list(user_id=user_id, action=action, resource=resource, since=since, limit=limit)
        )
