"""Caches lookups of sessions for a second, and records their use at most every few seconds."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from cachetools import TTLCache

from sandbox.preview.target import PreviewResolver, PreviewTarget

log = logging.getLogger(__name__)

#: Maximum number of cached sessions.
_MAX_ENTRIES = 4096


class Lookup:
    """A short-lived cache in front of a resolver. Not thread-safe."""

    def __init__(self, resolver: PreviewResolver, remember_seconds: float, touch_seconds: float) -> None:
        self._resolver = resolver
        self._answers: TTLCache[UUID, asyncio.Task[PreviewTarget | None]] = TTLCache(_MAX_ENTRIES, remember_seconds)
        self._touched: TTLCache[UUID, bool] = TTLCache(_MAX_ENTRIES, touch_seconds)
        self._touches: set[asyncio.Task[None]] = set()

    async def resolve(self, session_id: UUID) -> PreviewTarget | None:
        """Return the session, at most `remember_seconds` old. Concurrent callers share one lookup."""
        asked = self._answers.get(session_id)
        if asked is None or _failed(asked):
            asked = asyncio.create_task(self._resolver.resolve(session_id), name=f"resolve preview {session_id}")
            self._answers[session_id] = asked
        # Shielded: the client that asked first may hang up while others wait for the same answer.
        return await asyncio.shield(asked)

    def forget(self, session_id: UUID) -> None:
        """Look the session up again at the next call."""
        self._answers.pop(session_id, None)

    def touch(self, session_id: UUID) -> None:
        """Record that the session is in use, unless that was recorded recently. Does not wait and does not fail."""
        if session_id in self._touched:
            return
        self._touched[session_id] = True
        task = asyncio.create_task(self._touch(session_id), name=f"touch {session_id}")
        self._touches.add(task)
        task.add_done_callback(self._touches.discard)

    async def aclose(self) -> None:
        """Wait for the running tasks."""
        await asyncio.gather(*self._touches, *self._answers.values(), return_exceptions=True)

    async def _touch(self, session_id: UUID) -> None:
        try:
            await self._resolver.touch(session_id)
        except Exception:
            # Previews work without the database. The next use is recorded again.
            log.exception("could not record that session %s is in use", session_id)


def _failed(task: asyncio.Task[PreviewTarget | None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
