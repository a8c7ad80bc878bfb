"""What a session is, asked at most once a second; and that it is in use, told at most every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from typing import TypeVar
from uuid import UUID

from sandbox.preview.target import PreviewResolver, PreviewTarget

log = logging.getLogger(__name__)
V = TypeVar("V")

#: Sessions remembered at once; beyond that the one asked about longest ago is forgotten.
_MAX_ENTRIES = 4096


class Lookup:
    """A short memory in front of a resolver. Belongs to one event loop."""

    def __init__(self, resolver: PreviewResolver, remember_seconds: float, touch_seconds: float) -> None:
        self._resolver = resolver
        self._remember = remember_seconds
        self._touch_every = touch_seconds
        self._answers: OrderedDict[UUID, tuple[float, asyncio.Task[PreviewTarget | None]]] = OrderedDict()
        self._touched: OrderedDict[UUID, float] = OrderedDict()
        self._touches: set[asyncio.Task[None]] = set()

    async def resolve(self, session_id: UUID) -> PreviewTarget | None:
        """The session as of `remember_seconds` ago at most. Callers at the same time share one question."""
        known = self._answers.get(session_id)
        if known is None or known[0] < time.monotonic() or _failed(known[1]):
            task = asyncio.create_task(self._resolver.resolve(session_id), name=f"resolve preview {session_id}")
            known = (time.monotonic() + self._remember, task)
            _put(self._answers, session_id, known)
        # Shielded: the client that asked first may hang up while others wait for the same answer.
        return await asyncio.shield(known[1])

    def touch(self, session_id: UUID) -> None:
        """Say that the session is in use, unless that was said just now. Does not wait and does not fail."""
        now = time.monotonic()
        if now - self._touched.get(session_id, float("-inf")) < self._touch_every:
            return
        _put(self._touched, session_id, now)
        task = asyncio.create_task(self._touch(session_id), name=f"touch {session_id}")
        self._touches.add(task)
        task.add_done_callback(self._touches.discard)

    async def aclose(self) -> None:
        """Let what is under way come to its end."""
        await asyncio.gather(*self._touches, *(task for _, task in self._answers.values()), return_exceptions=True)

    async def _touch(self, session_id: UUID) -> None:
        try:
            await self._resolver.touch(session_id)
        except Exception:
            # A preview goes on while the database does not; the next use says it again.
            log.exception("could not record that session %s is in use", session_id)


def _failed(task: asyncio.Task[PreviewTarget | None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _put(entries: OrderedDict[UUID, V], key: UUID, value: V) -> None:
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > _MAX_ENTRIES:
        entries.popitem(last=False)
