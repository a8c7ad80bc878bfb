"""Keeps the edge running with the configuration of this service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from sandbox.edge.admin import EdgeAway
from sandbox.edge.external import ExternalEdge
from sandbox.edge.process import EdgeProcess
from sandbox.errors import SandboxError
from sandbox.settings import Settings

_CHECK_SECONDS = 0.5

log = logging.getLogger(__name__)


class Edge(Protocol):
    """The edge as the supervisor uses it; blocking calls."""

    def runs(self, configuration: Mapping[str, Any], /) -> bool: ...
    def ensure(self, configuration: Mapping[str, Any], /) -> object: ...


def edge_of(settings: Settings) -> Edge:
    """The edge that SANDBOX_EDGE names."""
    return ExternalEdge(settings) if settings.edge == "external" else EdgeProcess(settings)


class EdgeSupervisor:
    """Starts the edge, or configures it, and does so again when it has ended. Used from one event loop."""

    def __init__(self, edge: Edge, configuration: Mapping[str, Any]) -> None:
        self._edge = edge
        self._configuration = configuration
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the edge, or take over the one that runs. Raises EdgeUnavailable; one that others start may come
        later."""
        failure = ""
        try:
            await asyncio.to_thread(self._edge.ensure, self._configuration)
        except EdgeAway as error:
            failure = str(error)
            log.warning("%s", error)
        self._task = asyncio.create_task(self._supervise(failure), name="edge supervisor")

    async def close(self) -> None:
        """Stop supervising. The edge goes on: open previews outlive the service."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _supervise(self, failure: str) -> None:
        """`failure` is what was reported last; empty while the edge runs."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            if await asyncio.to_thread(self._edge.runs, self._configuration):
                continue
            if not failure:
                log.warning("the edge has ended, or has another configuration")
            try:
                await asyncio.to_thread(self._edge.ensure, self._configuration)
            except SandboxError as error:
                if str(error) != failure:
                    failure = str(error)
                    log.error("%s", error)  # noqa: TRY400 - the message is sufficient without a stack trace
                continue
            failure = ""
            log.info("the edge runs")
