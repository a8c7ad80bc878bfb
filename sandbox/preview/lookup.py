"""A short memory of sessions in front of the database."""

from __future__ import annotations

import asyncio
from uuid import UUID

from cachetools import TTLCache

from sandbox.preview.target import PreviewResolver, PreviewTarget

#: Sessions remembered at once.
_MAX_ENTRIES = 4096


class Lookup:
    """Resolves each session at most once in `remember_seconds`. Used from one event loop."""

    def __init__(self, resolver: PreviewResolver, remember_seconds: float) -> None:
        self._resolver = resolver
        self._answers: TTLCache[UUID, asyncio.Task[PreviewTarget | None]] = TTLCache(_MAX_ENTRIES, remember_seconds)

    async def resolve(self, session_id: UUID) -> PreviewTarget | None:
        """The session as of `remember_seconds` ago at most. Callers at the same time share one query."""
        asked = self._answers.get(session_id)
        if asked is None or _failed(asked):
            asked = asyncio.create_task(self._resolver.resolve(session_id), name=f"resolve preview {session_id}")
            self._answers[session_id] = asked
        # Shielded: the client that asked first may hang up while others wait for the same answer.
        return await asyncio.shield(asked)

    def forget(self, session_id: UUID) -> None:
        """Ask anew the next time."""
        self._answers.pop(session_id, None)

    async def aclose(self) -> None:
        """Wait for the queries that are under way."""
        await asyncio.gather(*self._answers.values(), return_exceptions=True)


def _failed(task: asyncio.Task[PreviewTarget | None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
