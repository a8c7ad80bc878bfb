"""The PostgreSQL that the service uses: the configured one, or the embedded one, which is kept alive."""

from __future__ import annotations

import logging
from pathlib import Path

from sandbox.db.embedded import EmbeddedPostgres
from sandbox.db.embedded_supervisor import PostgresSupervisor
from sandbox.db.migrations import migrate
from sandbox.errors import DatabaseUnavailable
from sandbox.settings import Settings

log = logging.getLogger(__name__)


class DatabaseServer:
    """The server of one service. `dsn` is valid after `start`."""

    def __init__(self, settings: Settings) -> None:
        self.dsn = settings.database_url or ""
        self._home = settings.home
        self._embedded = EmbeddedPostgres(settings.home) if settings.database_url is None else None
        self._supervisor = PostgresSupervisor(self._embedded) if self._embedded is not None else None

    async def start(self) -> None:
        """Start the embedded server and keep it alive, if it is used, and migrate the database.

        Raises DatabaseUnavailable and MigrationError.
        """
        if self._embedded is not None and self._supervisor is not None:
            self.dsn = await self._embedded.start()
            await self._supervisor.start()
        for name in await migrate(self.dsn):
            log.info("applied %s", name)

    async def close(self) -> None:
        """Stop looking after the embedded server. It goes on."""
        if self._supervisor is not None:
            await self._supervisor.close()

    async def replace_silent(self) -> None:
        """Replace the embedded server if it runs and does not answer. Another one is left alone.

        Raises DatabaseUnavailable.
        """
        if self._embedded is not None and await self._embedded.replace_silent():
            log.error("the embedded PostgreSQL did not answer; it was ended and started again")

    def explain(self) -> DatabaseUnavailable | None:
        """Why the embedded server could not be started, if that is known to be a full disk."""
        return self._supervisor.explain() if self._supervisor is not None else None

    def folder(self) -> Path | None:
        """The folder of the embedded server's files; None if another server is used."""
        return (self._home / "postgres").resolve() if self._embedded is not None else None
