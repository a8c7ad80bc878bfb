"""Fetches OTLP exports from containers. Containers have no network route to the service, so it must fetch them.

Each replica fetches from its share of the containers. The shares are computed from the set of live replicas and are not
stored: if a replica stops or hangs, the others take over its share at their next poll. If two replicas connect to one
container meanwhile, its guest agent serves the later connection, and gives each export to one of them.

A container without exports costs one idle connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from http import HTTPStatus

from sandbox.db.connection import Database
from sandbox.engine.base import Engine
from sandbox.engine.guest import Exports
from sandbox.engine.guest_data import Export, ExportAnswer
from sandbox.errors import DatabaseUnavailable, GuestError
from sandbox.records.otlp.messages import RecordKind
from sandbox.sessions.exports import store
from sandbox.sessions.exports.service import ExportService
from sandbox.sessions.exports.store import Source
from sandbox.sessions.replica import Replica
from sandbox.telemetry import context
from sandbox.telemetry.metrics.collectors import COLLECTED

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
#: Pause after refused exports; it doubles with each further refusal.
REFUSAL_SECONDS = 0.5
LONGEST_REFUSAL_SECONDS = 4.0
#: Pause if the guest agent is from an older image and does not support exports. The next launch replaces it.
UNSUPPORTED_PAUSE_SECONDS = 600.0
#: Containers that are connected to at the same time, and containers whose exports are in memory at the same time.
CONCURRENT_CONNECTS = 8
BATCHES_IN_MEMORY = 16
#: Longest that unfinished exports delay the shutdown of the service.
CLOSE_SECONDS = 5.0
_KINDS: dict[str, RecordKind] = {"/v1/traces": "spans", "/v1/logs": "logs"}


class Collector:
    """Fetches this replica's share. Not thread-safe.

    `start` must come after the replica is registered. `close` waits for exports that are being stored.
    """

    def __init__(
        self, db: Database, engine: Engine, replica: Replica, exports: ExportService, *, lease_seconds: float
    ) -> None:
        self._db = db
        self._engine = engine
        self._replica = replica
        self._exports = exports
        self._lease = lease_seconds
        self._tasks: dict[Source, asyncio.Task[None]] = {}
        #: Tasks that are to end; and tasks that are storing exports, which finish this before they end.
        self._ending: set[asyncio.Task[None]] = set()
        self._storing: set[asyncio.Task[None] | None] = set()
        self._connecting = asyncio.Semaphore(CONCURRENT_CONNECTS)
        self._in_memory = asyncio.Semaphore(BATCHES_IN_MEMORY)
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._poller = asyncio.create_task(self._poll(), name="export-collector")

    async def close(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait({self._poller})
        self._assign(set())
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)

    async def _poll(self) -> None:
        while True:
            try:
                self._assign(await self._share())
            except DatabaseUnavailable as error:
                log.info("the containers to fetch exports from cannot be read now: %s", error)
            except Exception:
                log.exception("assigning containers failed; it will be tried again")
            await asyncio.sleep(POLL_SECONDS)

    async def _share(self) -> set[Source]:
        """The containers from which this replica is to fetch."""
        async with self._db.read() as conn:
            live = await store.live_replicas(conn, self._lease)
            sources = await store.sources(conn)
        return share(sources, live, self._replica.number)

    def _assign(self, assigned: set[Source]) -> None:
        """Start a task for each newly assigned source, and end the tasks of the others."""
        for source in self._tasks.keys() - assigned:
            task = self._tasks.pop(source)
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            if task not in self._storing:
                task.cancel()
        for source in assigned - self._tasks.keys():
            name = f"exports-{source.session_id}-{source.role}"
            self._tasks[source] = asyncio.create_task(self._collect(source), name=name)
        COLLECTED.set(len(self._tasks))

    async def _collect(self, source: Source) -> None:
        """Fetch and store the container's exports for as long as this is the task of the source."""
        # Use one object throughout: if it were requested after the session's end, the engine would cache it for ever.
        guest = self._engine.guest(source.session_id, source.role)
        pause = FIRST_PAUSE_SECONDS
        with context.bind(session_id=str(source.session_id), user_id=source.user_id):
            while self._is_assigned(source):
                try:
                    async with self._connecting:
                        exports = await guest.exports()
                    pause = FIRST_PAUSE_SECONDS
                    try:
                        await self._fetch_repeatedly(source, exports)
                    finally:
                        await exports.close()
                except GuestError as error:
                    log.debug("exports of role %s cannot be fetched now: %s", source.role, error)
                    if error.code == "agent_refused":
                        pause = UNSUPPORTED_PAUSE_SECONDS
                except Exception:
                    log.exception("fetching the exports of role %s failed; it will be tried again", source.role)
                if self._is_assigned(source):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _is_assigned(self, source: Source) -> bool:
        return self._tasks.get(source) is asyncio.current_task()

    async def _fetch_repeatedly(self, source: Source, exports: Exports) -> None:
        pause = 0.0
        while self._is_assigned(source):
            await exports.arrived()
            async with self._in_memory:
                answers = await self._fetch_batch(source, exports)
            # Exports that are not fetched wait in the container. Fetching them only to refuse them would waste work.
            refused = any(answer.status >= HTTPStatus.BAD_REQUEST for answer in answers)
            pause = min(max(REFUSAL_SECONDS, pause * 2), LONGEST_REFUSAL_SECONDS) if refused else 0.0
            if pause and self._is_assigned(source):
                await asyncio.sleep(pause)

    async def _fetch_batch(self, source: Source, exports: Exports) -> list[ExportAnswer]:
        self._storing.add(asyncio.current_task())
        try:
            batch = await exports.fetch()
            answers = await asyncio.gather(*[self._answer(source, export) for export in batch])
            await exports.answer(answers)
        finally:
            self._storing.discard(asyncio.current_task())
        return answers

    async def _answer(self, source: Source, export: Export) -> ExportAnswer:
        kind = _KINDS.get(export.path)
        if kind is None:
            return ExportAnswer(export.number, HTTPStatus.NOT_FOUND, "", b"")
        token = export.authorization.partition(" ")[2].strip()
        try:
            answer = await self._exports.accept_from(
                source, kind, export.body, export.media_type, export.encoding, token
            )
        except Exception:
            log.exception("an export of role %s could not be stored", source.role)
            return ExportAnswer(export.number, HTTPStatus.INTERNAL_SERVER_ERROR, "", b"")
        retry_after = answer.headers.get("Retry-After")
        return ExportAnswer(
            export.number, answer.status, answer.media_type, answer.body, int(retry_after) if retry_after else None
        )


def share(sources: Iterable[Source], live: set[int], number: int) -> set[Source]:
    """The sources of replica `number`, of the replicas in `live`, by rendezvous hashing of the session.

    Every live replica gets about as many. When a replica comes or goes, only its own sources move.
    """
    if number not in live:
        return set()
    return {source for source in sources if max(live, key=lambda replica: _weight(source, replica)) == number}


def _weight(source: Source, replica: int) -> bytes:
    return hashlib.blake2b(f"{source.session_id} {replica}".encode(), digest_size=8).digest()
