"""Live fan-out of session events: one reader per session and replica, however many clients stream it.

Each event is encoded once, and the newest are buffered per session for all clients. A client keeps nothing but its
position. One that has fallen behind the buffer reads pages from the table, so a slow client costs neither memory of the
service nor time of the other clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from sandbox.db.connection import Database
from sandbox.db.notifications import listen
from sandbox.domain.events import Event
from sandbox.errors import DatabaseUnavailable, NotFound
from sandbox.events import store
from sandbox.events.sse import encode_event

log = logging.getLogger(__name__)

#: Events in a page read from the table.
PAGE = 500
#: Events buffered per session.
BUFFER = 2_000
#: Every feed is read again after this many seconds, in case a notification was lost.
REREAD_SECONDS = 5.0


def encode(event: Event) -> bytes:
    """The event as a server-sent event."""
    data = {
        "seq": event.seq,
        "session_id": str(event.session_id),
        "run_id": str(event.run_id),
        "time": _rfc3339(event.time),
        **event.data,
    }
    return encode_event(event.type.value, data, event_id=event.seq)


def _rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Feed:
    """The newest events of one session, encoded. Exists while at least one client streams the session."""

    def __init__(self, session_id: UUID) -> None:
        self.session_id = session_id
        self.clients = 0
        self.buffer: deque[tuple[int, bytes]] = deque(maxlen=BUFFER)
        self.position: store.Position | None = None
        self.last_seq = 0
        self.stale = asyncio.Event()
        self.changed = asyncio.Event()
        self.reader: asyncio.Task[None] | None = None

    def after(self, seq: int) -> list[bytes] | None:
        """The encoded events after `seq`; None when the buffer begins later than that."""
        if seq >= self.last_seq:
            return []
        if not self.buffer or self.buffer[0][0] > seq + 1:
            return None
        # Counted from the end, near which a deque is quick.
        return [self.buffer[index][1] for index in range(seq - self.last_seq, 0)]

    def wake(self) -> None:
        """Wake every client that waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class EventBroker:
    """Follows the event log and hands new events to clients. One per application; call `start` before use.

    Not thread-safe: all calls must come from the event loop that called `start`.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._feeds: dict[UUID, _Feed] = {}
        self._listener: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def start(self) -> None:
        """Begin to listen for notifications."""
        self._listener = asyncio.create_task(listen(self._db, store.CHANNEL, self._notified), name="event-listener")

    async def close(self) -> None:
        """End every stream. Clients reconnect to another replica with Last-Event-ID and miss nothing."""
        self._closing.set()
        for feed in self._feeds.values():
            feed.wake()
        if self._listener:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener

    async def follow(self, session_id: UUID, after: int) -> AsyncIterator[bytes]:
        """The encoded events after a seq, until the session has no work left and every event was yielded.

        One item may hold several events when the client is behind.
        """
        feed = self._join(session_id)
        try:
            while not self._closing.is_set():
                changed = feed.changed
                ready = feed.after(after)
                if ready is None:
                    page, _ = await store.read(self._db, session_id, after=after, limit=PAGE)
                    ready = [encode(event) for event in page]
                    # Not `after + len(page)`: the history of an old session is reduced to its last event.
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
        feed.clients += 1
        return feed

    def _leave(self, feed: _Feed) -> None:
        feed.clients -= 1
        if feed.clients == 0:
            self._feeds.pop(feed.session_id, None)
            if feed.reader:
                feed.reader.cancel()

    async def _read(self, feed: _Feed) -> None:
        """Refresh the feed whenever it is stale, and every `REREAD_SECONDS`."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REREAD_SECONDS):
                    await feed.stale.wait()
            feed.stale.clear()
            try:
                await self._refresh(feed)
            except (DatabaseUnavailable, NotFound) as error:
                log.warning("events of a session could not be read; trying again", extra={"cause": str(error)})

    async def _refresh(self, feed: _Feed) -> None:
        """Read events from the table until the feed has all of them."""
        more = True
        while more:
            if feed.position is None:
                # The buffer starts with the newest page. Clients that want older events read them themselves.
                _, position = await store.read(self._db, feed.session_id, after=2**62, limit=1)
                feed.last_seq = max(0, position.last_seq - PAGE) if position else 0
            events, position = await store.read(self._db, feed.session_id, after=feed.last_seq, limit=PAGE)
            for event in events:
                feed.buffer.append((event.seq, encode(event)))
                feed.last_seq = event.seq
            feed.position = position
            more = len(events) == PAGE
            feed.wake()

    def _notified(self, payload: str | None) -> None:
        """Mark the feed of the notified session as stale; all feeds after a connect, when notifications may be lost."""
        if payload is None:
            for feed in self._feeds.values():
                feed.stale.set()
        elif feed_or_none := self._feeds.get(UUID(payload)):
            feed_or_none.stale.set()
