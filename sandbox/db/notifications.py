"""Following a NOTIFY channel of PostgreSQL on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NoReturn

import psycopg
from psycopg import sql

from sandbox.db.connection import Database
from sandbox.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0


async def listen(db: Database, channel: str, on_notification: Callable[[str | None], None]) -> NoReturn:
    """Call `on_notification` with the payload of each notification of `channel`, until this task is cancelled.

    After every connect, the first one included, it is called with None: notifications that were sent before are
    lost, so the caller has to read what it follows again. A lost connection is logged and replaced after
    `RECONNECT_SECONDS`. What `on_notification` raises ends the task.
    """
    while True:
        try:
            async with db.connect_raw() as connection:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                on_notification(None)
                async for notification in connection.notifies():
                    on_notification(notification.payload)
        except (psycopg.Error, DatabaseUnavailable) as error:
            logger.warning(
                "lost the connection for notifications of %s; reconnecting", channel, extra={"cause": str(error)}
            )
        await asyncio.sleep(RECONNECT_SECONDS)
