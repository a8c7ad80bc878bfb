"""The dependencies that the service keeps from earlier launches."""

from __future__ import annotations

from sandbox.client.aio import pages
from sandbox.client.bridge import run
from sandbox.client.config import ClientConfig, resolve
from sandbox.client.models import KeptInstall
from sandbox.client.transport import Transport

_PATH = "/api/v1/cache"


class AsyncCache:
    """Kept installs and downloads: the caller's, and for an admin all users' or those of `user_id`."""

    def __init__(
        self, *, base_url: str | None = None, token: str | None = None, config: ClientConfig | None = None
    ) -> None:
        self._config = config or resolve(base_url, token)

    async def list(self, *, user_id: str | None = None) -> list[KeptInstall]:
        """Return what is kept, the last used first."""
        transport = Transport(self._config)
        try:
            return [KeptInstall.from_json(item) async for item in pages(transport, _PATH, {"user_id": user_id})]
        finally:
            await transport.aclose()

    async def clear(self, *, user_id: str | None = None) -> int:
        """Remove what is kept, and return how many entries that were."""
        transport = Transport(self._config)
        try:
            return int((await transport.json("DELETE", _PATH, params={"user_id": user_id}))["removed"])
        finally:
            await transport.aclose()


class Cache:
    """The same for code without an event loop. For what each method does see AsyncCache."""

    def __init__(
        self, *, base_url: str | None = None, token: str | None = None, config: ClientConfig | None = None
    ) -> None:
        self._async = AsyncCache(base_url=base_url, token=token, config=config)

    def list(self, *, user_id: str | None = None) -> list[KeptInstall]:
        return run(lambda: self._async.list(user_id=user_id))

    def clear(self, *, user_id: str | None = None) -> int:
        return run(lambda: self._async.clear(user_id=user_id))
