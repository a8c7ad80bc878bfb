"""Live fan-out: one reader a session and replica, however many viewers; every event is encoded once.

A viewer holds nothing but its position. Events are kept encoded in a short shared tail; a viewer that fell behind it
reads pages from the table instead, so one that stops reading costs the others, and the service's memory, nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

import psycopg

from sandbox.db.connection import Database
from sandbox.domain.events import Event
from sandbox.errors import DatabaseUnavailable, NotFound
from sandbox.events import store

log = logging.getLogger(__name__)

#: Events a page read from the table holds, and the shared tail keeps.
PAGE = 500
TAIL = 2_000
#: A missed notification is made good after this long.
RELIST_SECONDS = 5.0


def encode(event: Event) -> bytes:
    """The event as it goes over the wire: id, event and data lines of SSE."""
    data = {
        "seq": event.seq,
        "session_id": str(event.session_id),
        "run_id": str(event.run_id),
        "time": rfc3339(event.time),
        **event.data,
    }
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.seq}\nevent: {event.type.value}\ndata: {body}\n\n".encode("utf-8", "replace")


def rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Feed:
    """The shared tail of one session's log, kept while somebody watches."""

    def __init__(self, session_id: UUID) -> None:
        self.session_id = session_id
        self.viewers = 0
        self.tail: deque[tuple[int, bytes]] = deque(maxlen=TAIL)
        self.position: store.Position | None = None
        self.last_seq = 0
        self.stale = asyncio.Event()
        self.changed = asyncio.Event()
        self.reader: asyncio.Task[None] | None = None

    def after(self, seq: int) -> list[bytes] | None:
        """Encoded events after `seq` from the tail; None when they begin before it."""
        if seq >= self.last_seq:
            return []
        if not self.tail or self.tail[0][0] > seq + 1:
            return None
        skip = seq + 1 - self.tail[0][0]
        return [data for index, (_, data) in enumerate(self.tail) if index >= skip]

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class EventBroker:
    """Follows the event log by LISTEN and hands it to viewers. One an application; `start` before use."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._feeds: dict[UUID, _Feed] = {}
        self._listener: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def start(self) -> None:
        self._listener = asyncio.create_task(self._listen(), name="event-listener")

    async def close(self) -> None:
        """End every stream; viewers reconnect (elsewhere) with Last-Event-ID and miss nothing."""
        self._closing.set()
        for feed in self._feeds.values():
            feed.wake()
        if self._listener:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener

    @property
    def viewers(self) -> int:
        return sum(feed.viewers for feed in self._feeds.values())

    async def follow(self, session_id: UUID, after: int) -> AsyncIterator[bytes]:
        """Encoded events after a seq, on until the session is at rest and all is told. Several a yield when behind."""
        feed = self._join(session_id)
        try:
            while not self._closing.is_set():
                changed = feed.changed
                ready = feed.after(after)
                if ready is None:
                    page, _ = await store.read(self._db, session_id, after=after, limit=PAGE)
                    ready = [encode(event) for event in page]
                    # Not counted up: of a session that ended long ago only the last event is kept.
                    after = page[-1].seq if page else after
                elif ready:
                    after = feed.last_seq
                if ready:
                    yield b"".join(ready)
                elif feed.position is not None and feed.position.is_over_after(after):
                    return
                else:
                    await changed.wait()
        finally:
            self._leave(feed)

    def _join(self, session_id: UUID) -> _Feed:
        feed = self._feeds.get(session_id)
        if feed is None:
            feed = self._feeds[session_id] = _Feed(session_id)
            feed.stale.set()
            feed.reader = asyncio.create_task(self._read(feed), name=f"event-feed-{session_id}")
        feed.viewers += 1
        return feed

    def _leave(self, feed: _Feed) -> None:
        feed.viewers -= 1
        if feed.viewers == 0:
            self._feeds.pop(feed.session_id, None)
            if feed.reader:
                feed.reader.cancel()

    async def _read(self, feed: _Feed) -> None:
        """Bring the feed's tail up to date whenever it is stale."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RELIST_SECONDS):
                    await feed.stale.wait()
            feed.stale.clear()
            try:
                await self._refresh(feed)
            except (DatabaseUnavailable, NotFound) as error:
                log.warning("events of a session could not be read; trying again", extra={"cause": str(error)})

    async def _refresh(self, feed: _Feed) -> None:
        more = True
        while more:
            if feed.position is None:
                # The tail starts with the newest page; older events are each viewer's own affair.
                _, position = await store.read(self._db, feed.session_id, after=2**62, limit=1)
                feed.last_seq = max(0, position.last_seq - PAGE) if position else 0
            events, position = await store.read(self._db, feed.session_id, after=feed.last_seq, limit=PAGE)
            for event in events:
                feed.tail.append((event.seq, encode(event)))
                feed.last_seq = event.seq
            feed.position = position
            more = len(events) == PAGE
            feed.wake()

    async def _listen(self) -> None:
        """Turn notifications into stale feeds; after a lost connection every feed is stale."""
        while True:
            try:
                async with self._db.connect_raw() as conn:
                    await conn.execute(f"LISTEN {store.CHANNEL}")
                    for feed in self._feeds.values():
                        feed.stale.set()
                    async for notification in conn.notifies():
                        feed_or_none = self._feeds.get(UUID(notification.payload))
                        if feed_or_none:
                            feed_or_none.stale.set()
            except (psycopg.Error, DatabaseUnavailable) as error:
                log.warning("lost the notification connection; reconnecting", extra={"cause": str(error)})
                await asyncio.sleep(1)
