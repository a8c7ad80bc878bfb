"""The resource usage of a session's containers, measured in them."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from sandbox.concurrency import for_each
from sandbox.domain.session import Session
from sandbox.engine.base import Engine
from sandbox.errors import GuestError

log = logging.getLogger(__name__)


async def measure(engine: Engine, session: Session) -> dict[str, dict[str, Any]]:
    """The resource usage of each role's container, or its error if the guest agent does not answer."""

    async def one(role: str) -> dict[str, Any]:
        try:
            return asdict(await engine.guest(session.session_id, role).stats())
        except GuestError as error:
            return {"error": {"code": error.code, "message": error.message}}

    return await for_each(session.containers, one)


async def history(engine: Engine, session: Session) -> dict[str, list[dict[str, Any]]]:
    """The measurements of each role's container over the last hour, oldest first.

    A role has none if its guest agent does not answer, or is of a release that did not measure yet.
    """

    async def one(role: str) -> list[dict[str, Any]]:
        try:
            return [asdict(it) for it in await engine.guest(session.session_id, role).stats_history()]
        except GuestError as error:
            log.info("no usage history of %s: %s", role, error)
            return []

    return await for_each(session.containers, one)
