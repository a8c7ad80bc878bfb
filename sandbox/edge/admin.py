"""The edge's admin API, over its unix socket. Blocking calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sandbox.edge.folder import EdgeFolder
from sandbox.edge.program import OLDEST_VERSION, EdgeUnavailable
from sandbox.edge.unix_http import ask

_TIMEOUT_SECONDS = 10.0


class EdgeAway(EdgeUnavailable):
    """Nothing answers at the edge's admin socket."""


class EdgeAdmin:
    """Asks the edge of this folder for its configuration and gives it one."""

    def __init__(self, folder: EdgeFolder) -> None:
        self._folder = folder

    def answers(self) -> bool:
        """Whether the edge runs."""
        return self._found("/config/admin")

    def holds(self, configuration: Mapping[str, Any]) -> bool:
        """Whether the edge runs with exactly this configuration."""
        identity, _ = identified(configuration)
        return self._found(f"/id/{identity}/admin")

    def load(self, configuration: Mapping[str, Any]) -> None:
        """Replace the edge's configuration. Raises EdgeAway, and EdgeUnavailable if the edge refuses it."""
        _, text = identified(configuration)
        try:
            status, said = ask(self._folder.admin_socket, "POST", "/load", text, timeout=_TIMEOUT_SECONDS)
        except OSError as error:
            raise EdgeAway(
                f"No edge answers at {self._folder.admin_socket}: {error}",
                hint="With SANDBOX_EDGE=external, start Caddy with CADDY_ADMIN naming this socket: docker-compose.yml",
            ) from error
        if status != 200:
            oldest = ".".join(map(str, OLDEST_VERSION))
            raise EdgeUnavailable(
                f"The edge refused its configuration: {said[:500]}",
                hint=f"It must be Caddy {oldest} or newer, with the modules that SANDBOX_TLS needs.",
            )

    def _found(self, path: str) -> bool:
        try:
            return ask(self._folder.admin_socket, "GET", path, timeout=_TIMEOUT_SECONDS)[0] == 200
        except OSError:
            return False


def identified(configuration: Mapping[str, Any]) -> tuple[str, str]:
    """An id made from the configuration's content, and the configuration with this id as JSON: the edge can be asked
    for the object with an id."""
    identity = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode()).hexdigest()[:16]
    return identity, json.dumps({"@id": identity} | dict(configuration), indent=1)
