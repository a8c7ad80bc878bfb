"""Output of apps counts as activity: a session without clients may still be working."""

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

#: Sessions checked in one pass, guest agents asked at the same time, and the timeout of each.
SESSIONS = 100
CONCURRENT_GUESTS = 32
ANSWER_SECONDS = 2.0


async def touch_sessions_with_output(conn: AsyncConnection, engine: Engine) -> list[UUID]:
    """Record activity of the sessions near their idle timeout whose apps have printed since the last check; their ids.

    The output observed is stored in the row, so any replica can do the next check. A guest agent that does not answer
    counts as no output.
    """
    slots = asyncio.Semaphore(CONCURRENT_GUESTS)
    rows = await store.sessions_to_check(conn, SESSIONS)
    candidates = {str(session.session_id): (session, observed) for session, observed in rows}
    printed = await for_each(candidates, lambda key: _printed(engine, candidates[key][0], slots))
    active = []
    for key, (session, observed) in candidates.items():
        grown = any(observed.get(role, end) != end for role, end in printed[key].items())
        if await store.record_output(conn, session, printed[key], active=grown) and grown:
            active.append(session.session_id)
    return active


async def _printed(engine: Engine, session: Session, slots: asyncio.Semaphore) -> dict[str, int]:
    """Bytes that the current run's app has printed, by role; roles whose guest agent does not answer are left out."""
    name = process_name(ProcessKind.APP, session.run_id)

    async def one(role: str) -> int | None:
        try:
            async with slots, asyncio.timeout(ANSWER_SECONDS):
                process = await engine.guest(session.session_id, role).process(name)
        except (SandboxError, TimeoutError) as error:
            log.debug("role %s of session %s does not answer: %s", role, session.session_id, error)
            return None
        return process.output_end if process is not None else None

    ends = await for_each(session.containers, one)
    return {role: end for role, end in ends.items() if end is not None}
