"""Following a NOTIFY channel, across a lost connection."""

import asyncio

import psycopg
import pytest

from sandbox.db import notifications
from sandbox.db.connection import Database
from sandbox.db.notifications import listen


async def test_notifications_and_reconnects_are_reported(
    database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "RECONNECT_SECONDS", 0.05)
    received: asyncio.Queue[str | None] = asyncio.Queue()
    listener = asyncio.create_task(listen(database, "a_channel", received.put_nowait))
    try:
        async with asyncio.timeout(60):
            assert await received.get() is None
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SELECT pg_notify('a_channel', 'first')")
                assert await received.get() == "first"
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                )
                assert await received.get() is None
                connection.execute("SELECT pg_notify('a_channel', 'second')")
                assert await received.get() == "second"
    finally:
        listener.cancel()
