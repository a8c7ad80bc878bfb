"""An edge that others start and stop: a container of the official Caddy image beside the service, for example.

It runs in the edge's folder, with nothing but its admin socket (`CADDY_ADMIN=unix/admin.sock|0600 caddy run --resume`),
and as the user of the service: the sockets in the folder are that user's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox.edge.admin import EdgeAdmin
from sandbox.edge.folder import EdgeFolder
from sandbox.settings import Settings


class ExternalEdge:
    """The edge in this data folder's edge folder. Blocking calls."""

    def __init__(self, settings: Settings) -> None:
        self._folder = EdgeFolder.of(settings)
        self._admin = EdgeAdmin(self._folder)

    def runs(self, configuration: Mapping[str, Any]) -> bool:
        """Whether the edge runs with this configuration. One that was started again may have none, or an older one."""
        return self._admin.holds(configuration)

    def ensure(self, configuration: Mapping[str, Any]) -> None:
        """Give the edge this configuration unless it has it. Raises EdgeAway if it does not run, EdgeUnavailable if
        it refuses the configuration."""
        self._folder.make()
        if not self.runs(configuration):
            self._admin.load(configuration)
