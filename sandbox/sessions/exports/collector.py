"""Fetches what apps report: their containers can reach nothing, so the service comes for it.

Each replica comes for its share of the containers. Which that is follows from who lives, so nothing of it is kept: a
replica that stops or hangs is missed at the next look, and its share falls to the others. Should two come for one
container meanwhile, its guest agent gives to the later, and every export to one.

A container that reports nothing costs one connection on which nothing is said.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterable
from http import HTTPStatus

from sandbox.db.connection import Database
from sandbox.engine.base import Engine, Export, ExportAnswer, Exports
from sandbox.errors import DatabaseUnavailable, GuestError
from sandbox.records.otlp.messages import RecordKind
from sandbox.sessions.exports import store
from sandbox.sessions.exports.service import ExportService
from sandbox.sessions.exports.store import Source
from sandbox.sessions.replica import Replica
from sandbox.telemetry import context
from sandbox.telemetry.metrics.collectors import COLLECTED

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
#: After exports that were refused the next are fetched so much later, twice that after the next refusal, and so on.
REFUSAL_SECONDS = 0.5
LONGEST_REFUSAL_SECONDS = 4.0
#: A guest agent of an older image takes no reports; its container gets a new one at the next launch.
REFUSED_PAUSE_SECONDS = 600.0
#: Containers connected to at once, and containers whose exports are in memory at once.
CONNECTING = 8
SERVED = 16
#: Longest that exports under way hold up the end of the service.
CLOSE_SECONDS = 5.0
_KINDS: dict[str, RecordKind] = {"/v1/traces": "spans", "/v1/logs": "logs"}


class Collector:
    """`start` after the replica is registered. `close` lets what is under way come to its end."""

    def __init__(
        self, db: Database, engine: Engine, replica: Replica, exports: ExportService, *, lease_seconds: float
    ) -> None:
        self._db = db
        self._engine = engine
        self._replica = replica
        self._exports = exports
        self._lease = lease_seconds
        self._tasks: dict[Source, asyncio.Task[None]] = {}
        #: Those that are to end, and those that have exports in their hands, which come to their end first.
        self._ending: set[asyncio.Task[None]] = set()
        self._serving: set[asyncio.Task[None] | None] = set()
        self._connecting = asyncio.Semaphore(CONNECTING)
        self._served = asyncio.Semaphore(SERVED)
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._looking = asyncio.create_task(self._look_forever(), name="export-collector")

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        self._come_for(set())
        if self._ending:
            _, late = await asyncio.wait(self._ending, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)

    async def _look_forever(self) -> None:
        while True:
            try:
                self._come_for(await self._share())
            except DatabaseUnavailable as error:
                log.info("containers that report are looked for later: %s", error)
            except Exception:
                log.exception("looking for containers that report failed; it will be tried again")
            await asyncio.sleep(LOOK_SECONDS)

    async def _share(self) -> set[Source]:
        """The containers that are this replica's to come for."""
        async with self._db.read() as conn:
            living = await store.living_replicas(conn, self._lease)
            sources = await store.sources(conn)
        return share(sources, living, self._replica.number)

    def _come_for(self, wanted: set[Source]) -> None:
        for source in self._tasks.keys() - wanted:
            task = self._tasks.pop(source)
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
            if task not in self._serving:
                task.cancel()
        for source in wanted - self._tasks.keys():
            name = f"exports-{source.session_id}-{source.role}"
            self._tasks[source] = asyncio.create_task(self._collect(source), name=name)
        COLLECTED.set(len(self._tasks))

    async def _collect(self, source: Source) -> None:
        """Serve the container for as long as the task is the one for it."""
        # The one object throughout: asked for again after the session's end, the engine would keep one for ever.
        guest = self._engine.guest(source.session_id, source.role)
        pause = FIRST_PAUSE_SECONDS
        with context.bind(session_id=str(source.session_id), user_id=source.user_id):
            while self._is_wanted(source):
                try:
                    async with self._connecting:
                        exports = await guest.exports()
                    pause = FIRST_PAUSE_SECONDS
                    try:
                        await self._serve(source, exports)
                    finally:
                        await exports.close()
                except GuestError as error:
                    log.debug("role %s cannot report now: %s", source.role, error)
                    if error.code == "agent_refused":
                        pause = REFUSED_PAUSE_SECONDS
                except Exception:
                    log.exception("fetching what role %s reports failed; it will be tried again", source.role)
                if self._is_wanted(source):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _is_wanted(self, source: Source) -> bool:
        return self._tasks.get(source) is asyncio.current_task()

    async def _serve(self, source: Source, exports: Exports) -> None:
        pause = 0.0
        while self._is_wanted(source):
            await exports.arrived()
            async with self._served:
                answers = await self._serve_batch(source, exports)
            # What is not fetched waits in its container: fetching only to refuse would cost the service more than them.
            refused = any(answer.status >= HTTPStatus.BAD_REQUEST for answer in answers)
            pause = min(max(REFUSAL_SECONDS, pause * 2), LONGEST_REFUSAL_SECONDS) if refused else 0.0
            if pause and self._is_wanted(source):
                await asyncio.sleep(pause)

    async def _serve_batch(self, source: Source, exports: Exports) -> list[ExportAnswer]:
        self._serving.add(asyncio.current_task())
        try:
            batch = await exports.fetch()
            answers = await asyncio.gather(*[self._answer(source, export) for export in batch])
            await exports.answer(answers)
        finally:
            self._serving.discard(asyncio.current_task())
        return answers

    async def _answer(self, source: Source, export: Export) -> ExportAnswer:
        kind = _KINDS.get(export.path)
        if kind is None:
            return ExportAnswer(export.number, HTTPStatus.NOT_FOUND, "", b"")
        token = export.authorization.partition(" ")[2].strip()
        try:
            answer = await self._exports.take_from(source, kind, export.body, export.media_type, export.encoding, token)
        except Exception:
            log.exception("what role %s reported could not be taken", source.role)
            return ExportAnswer(export.number, HTTPStatus.INTERNAL_SERVER_ERROR, "", b"")
        retry_after = answer.headers.get("Retry-After")
        return ExportAnswer(
            export.number, answer.status, answer.media_type, answer.body, int(retry_after) if retry_after else None
        )


def share(sources: Iterable[Source], living: set[int], number: int) -> set[Source]:
    """The sources that fall to the replica of this number: to each living one about as many, and when one goes or
    comes no more than its own change hands."""
    if number not in living:
        return set()
    return {source for source in sources if max(living, key=lambda replica: _weight(source, replica)) == number}


def _weight(source: Source, replica: int) -> bytes:
    return hashlib.blake2b(f"{source.session_id} {replica}".encode(), digest_size=8).digest()
