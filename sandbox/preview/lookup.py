"""What a session is, asked at most once a second; and that it is in use, told at most every few seconds."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from cachetools import TTLCache

from sandbox.preview.target import PreviewResolver, PreviewTarget

log = logging.getLogger(__name__)

#: Sessions remembered at once.
_MAX_ENTRIES = 4096


class Lookup:
    """A short memory in front of a resolver. Belongs to one event loop."""

    def __init__(self, resolver: PreviewResolver, remember_seconds: float, touch_seconds: float) -> None:
        self._resolver = resolver
        self._answers: TTLCache[UUID, asyncio.Task[PreviewTarget | None]] = TTLCache(_MAX_ENTRIES, remember_seconds)
        self._touched: TTLCache[UUID, bool] = TTLCache(_MAX_ENTRIES, touch_seconds)
        self._touches: set[asyncio.Task[None]] = set()

    async def resolve(self, session_id: UUID) -> PreviewTarget | None:
        """The session as of `remember_seconds` ago at most. Callers at the same time share one question."""
        asked = self._answers.get(session_id)
        if asked is None or _failed(asked):
            asked = asyncio.create_task(self._resolver.resolve(session_id), name=f"resolve preview {session_id}")
            self._answers[session_id] = asked
        # Shielded: the client that asked first may hang up while others wait for the same answer.
        return await asyncio.shield(asked)

    def forget(self, session_id: UUID) -> None:
        """Ask anew the next time."""
        self._answers.pop(session_id, None)

    def touch(self, session_id: UUID) -> None:
        """Say that the session is in use, unless that was said just now. Does not wait and does not fail."""
        if session_id in self._touched:
            return
        self._touched[session_id] = True
        task = asyncio.create_task(self._touch(session_id), name=f"touch {session_id}")
        self._touches.add(task)
        task.add_done_callback(self._touches.discard)

    async def aclose(self) -> None:
        """Let what is under way come to its end."""
        await asyncio.gather(*self._touches, *self._answers.values(), return_exceptions=True)

    async def _touch(self, session_id: UUID) -> None:
        try:
            await self._resolver.touch(session_id)
        except Exception:
            # A preview goes on while the database does not; the next use says it again.
            log.exception("could not record that session %s is in use", session_id)


def _failed(task: asyncio.Task[PreviewTarget | None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
