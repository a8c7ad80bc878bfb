"""Counts the requests of previews, which pass the edge alone, and notes which sessions are used."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from uuid import UUID

from sandbox.edge.access_log import AccessLogReader, PreviewRequest
from sandbox.edge.folder import EdgeFolder
from sandbox.edge.store import GrantStore
from sandbox.errors import DatabaseUnavailable
from sandbox.sessions.failed_requests import FailedRequests
from sandbox.telemetry import context
from sandbox.telemetry.metrics.collectors import observe_previews

READ_SECONDS = 2.0
#: Most log lines of one reading; a session that logs its requests may have as many as that.
_MAX_LINES = 1000

log = logging.getLogger(__name__)
#: Requests of sessions that ask for it (`preview = { log = true }`).
preview_log = logging.getLogger("sandbox.preview.access")


class PreviewRequests:
    """Reads the edge's access log. `touch` is called with each session whose preview was asked. Used from one loop."""

    def __init__(
        self, folder: EdgeFolder, store: GrantStore, touch: Callable[[UUID], None], failed: FailedRequests
    ) -> None:
        self._failed = failed
        self._reader = AccessLogReader(folder.path)
        self._store = store
        self._touch = touch
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin with what the edge has logged since an earlier run of the service."""
        await asyncio.to_thread(self._reader.resume)
        self._task = asyncio.create_task(self._follow(), name="preview requests")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._reader.close()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(READ_SECONDS)
            try:
                requests = await asyncio.to_thread(self._reader.read)
                if requests:
                    await self._note(requests)
                    await asyncio.to_thread(self._reader.save)
            except DatabaseUnavailable as error:
                log.warning("requests of previews could not be logged: %s", error)
            except Exception:
                log.exception("requests of previews could not be counted")

    async def _note(self, requests: Sequence[PreviewRequest]) -> None:
        observe_previews(Counter((str(each.session_id), str(each.status)) for each in requests))
        for each in requests:
            self._failed.note(each.session_id, each.method, each.path, each.status)
        sessions = {each.session_id for each in requests}
        for session_id in sessions:
            self._touch(session_id)
        logged = await self._store.logged_sessions(sessions)
        for each in [each for each in requests if each.session_id in logged][:_MAX_LINES]:
            _log(each)


def _log(request: PreviewRequest) -> None:
    duration_ms = round(request.seconds * 1000, 1)
    extra = {"method": request.method, "path": request.path, "status": request.status, "duration_ms": duration_ms}
    with context.bind(session_id=str(request.session_id)):
        preview_log.info("%s %s %d %.1f ms", request.method, request.path, request.status, duration_ms, extra=extra)
