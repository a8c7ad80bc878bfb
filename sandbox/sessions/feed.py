"""The sessions of a caller as they change: read once for each replica, however many viewers follow them.

A viewer gets states, not a history: when it is slow, it gets only the newest state of each session. After an
interruption it gets all states again, so nothing can be missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from uuid import UUID

from sandbox.db.connection import Database
from sandbox.db.notifications import listen
from sandbox.domain.caller import Caller
from sandbox.domain.session import Session, SessionStatus
from sandbox.errors import DatabaseUnavailable
from sandbox.events.store import CHANNEL
from sandbox.sessions import store

log = logging.getLogger(__name__)

#: Changes are collected for this long, so that a launch does not cause a read for each of its events.
COLLECT_SECONDS = 0.15
#: All living sessions are read again after this many seconds: some changes, such as a renewal, have no event.
REREAD_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Change:
    """The newest state of a session; None if its row has been deleted."""

    session_id: UUID
    session: Session | None


@dataclass(eq=False, slots=True)
class _Viewer:
    caller: Caller
    waiting: dict[UUID, Change] = field(default_factory=dict)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, owner: str, change: Change) -> None:
        if self.caller.may_see(owner):
            self.waiting[change.session_id] = change
            self.woken.set()


class SessionFeed:
    """Hands changes of sessions to viewers. One per application; call `start` before use. Not thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._viewers: set[_Viewer] = set()
        #: The sessions that are not terminated, as they were read last.
        self._known: dict[UUID, Session] = {}
        self._changed: set[UUID] = set()
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to listen for changes."""
        self._tasks = [
            asyncio.create_task(listen(self._db, CHANNEL, self._notified), name="session-feed-listener"),
            asyncio.create_task(self._run(), name="session-feed"),
        ]

    async def close(self) -> None:
        """End every stream; viewers connect to another replica, or to this one after its restart."""
        self._closing.set()
        for viewer in self._viewers:
            viewer.woken.set()
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def follow(self, caller: Caller) -> AsyncIterator[list[Change]]:
        """All sessions of the caller that are not terminated, then every change of one of its sessions."""
        viewer = _Viewer(caller)
        self._viewers.add(viewer)
        try:
            async with self._db.read() as conn:
                living = await store.living(conn, caller)
            # What changed while this was read waits already, and is newer.
            for session in living:
                viewer.waiting.setdefault(session.session_id, Change(session.session_id, session))
            yield self._taken(viewer)
            while True:
                await viewer.woken.wait()
                if self._closing.is_set():
                    return
                yield self._taken(viewer)
        finally:
            self._viewers.discard(viewer)

    @staticmethod
    def _taken(viewer: _Viewer) -> list[Change]:
        changes = [*viewer.waiting.values()]
        viewer.waiting.clear()
        viewer.woken.clear()
        return changes

    def _notified(self, payload: str | None) -> None:
        if payload is not None:
            self._changed.add(UUID(payload))
        self._wake.set()

    async def _run(self) -> None:
        while True:
            is_woken = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REREAD_SECONDS):
                    is_woken = await self._wake.wait()
            self._wake.clear()
            if is_woken:
                await asyncio.sleep(COLLECT_SECONDS)
            if not self._viewers:
                # Without viewers nothing is read, and what is known would be outdated for the next one.
                self._known.clear()
                self._changed.clear()
                continue
            try:
                await self._refresh(everything=not is_woken)
            except DatabaseUnavailable as error:
                log.warning("the sessions could not be read; trying again", extra={"cause": str(error)})

    async def _refresh(self, *, everything: bool) -> None:
        """Read the sessions that changed, or all that live and all that lived, and hand on what differs."""
        ids, self._changed = self._changed, set()
        try:
            async with self._db.read() as conn:
                if everything:
                    found = {session.session_id: session for session in await store.living(conn, None)}
                    ids |= self._known.keys() - found.keys()
                else:
                    found = {}
                if missing := [*(ids - found.keys())]:
                    found |= {session.session_id: session for session in await store.by_ids(conn, missing)}
        except DatabaseUnavailable:
            self._changed |= ids
            raise
        for session in found.values():
            self._hand_on(session)
        for session_id in ids - found.keys():
            if (deleted := self._known.pop(session_id, None)) is not None:
                for viewer in self._viewers:
                    viewer.put(deleted.user_id, Change(session_id, None))

    def _hand_on(self, session: Session) -> None:
        if self._known.get(session.session_id) == session:
            return
        if session.status is SessionStatus.TERMINATED:
            self._known.pop(session.session_id, None)
        else:
            self._known[session.session_id] = session
        for viewer in self._viewers:
            viewer.put(session.user_id, Change(session.session_id, session))
