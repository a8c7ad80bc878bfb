"""Whether apps have printed since they were last looked at: a session that nobody watches may still be at work."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from sandbox.concurrency import for_each
from sandbox.domain.processes import ProcessKind, process_name
from sandbox.domain.session import Session
from sandbox.engine.base import Engine
from sandbox.errors import SandboxError
from sandbox.sessions.housekeeping import store

log = logging.getLogger(__name__)

#: Sessions looked at in one turn, guest agents asked at once, and how long one may take to answer.
SESSIONS = 100
CONCURRENT_GUESTS = 32
ANSWER_SECONDS = 2.0


async def note_app_output(conn: AsyncConnection, engine: Engine) -> list[UUID]:
    """Touch the sessions near their idle end whose apps have printed since the last look; their ids.

    What was seen is kept in the row, so it does not matter which replica looks. A guest agent that does not answer has
    printed nothing.
    """
    slots = asyncio.Semaphore(CONCURRENT_GUESTS)
    quiet = {str(session.session_id): (session, seen) for session, seen in await store.quiet(conn, SESSIONS)}
    printed = await for_each(quiet, lambda key: _printed(engine, quiet[key][0], slots))
    active = []
    for key, (session, seen) in quiet.items():
        grown = any(seen.get(role, end) != end for role, end in printed[key].items())
        if await store.note_output(conn, session, printed[key], active=grown) and grown:
            active.append(session.session_id)
    return active


async def _printed(engine: Engine, session: Session, slots: asyncio.Semaphore) -> dict[str, int]:
    """Bytes that the current run's app has printed, of each role whose guest agent answers."""

    name = process_name(ProcessKind.APP, session.run_id)

    async def one(role: str) -> int | None:
        try:
            async with slots, asyncio.timeout(ANSWER_SECONDS):
                process = await engine.guest(session.session_id, role).process(name)
        except (SandboxError, TimeoutError) as error:
            log.debug("role %s of session %s cannot be asked what it printed: %s", role, session.session_id, error)
            return None
        return process.output_end if process is not None else None

    ends = await for_each(session.containers, one)
    return {role: end for role, end in ends.items() if end is not None}
