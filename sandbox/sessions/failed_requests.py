"""Requests of previews that the apps have answered with an error, of the last hour. In memory: after a restart of the
service, and in another replica, they begin anew."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from cachetools import TTLCache

#: Sessions, and requests of each, that are kept.
MOST_SESSIONS = 1000
MOST_REQUESTS = 50
KEPT_SECONDS = 3600
FAILED_FROM = 400
#: The edge's status of a request that the visitor gave up, such as by reloading: no answer of the app.
GIVEN_UP = 499


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request and its answer. `path` is without the query, which may hold secrets."""

    time: datetime
    method: str
    path: str
    status: int


class FailedRequests:
    """The latest failed requests of each session. Not thread-safe."""

    def __init__(self) -> None:
        self._by_session: TTLCache[UUID, deque[FailedRequest]] = TTLCache(MOST_SESSIONS, KEPT_SECONDS)

    def note(self, session_id: UUID, method: str, path: str, status: int) -> None:
        """An app has answered a request just now. One that has not failed, or was given up, is ignored."""
        if status < FAILED_FROM or status == GIVEN_UP:
            return
        kept = self._by_session.get(session_id) or deque(maxlen=MOST_REQUESTS)
        kept.append(FailedRequest(datetime.now(UTC), method, path[:500], status))
        self._by_session[session_id] = kept

    def of(self, session_id: UUID) -> list[FailedRequest]:
        """Newest first."""
        return list(reversed(self._by_session.get(session_id, ())))
