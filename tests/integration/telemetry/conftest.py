"""A recorder that writes to the test's database, and access to the rows it wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.telemetry.recorder import Recorder


class Records:
    """Reads `logs` and `traces`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def logs(self) -> list[Any]:
        return await self._rows("SELECT * FROM logs ORDER BY log_id")

    async def spans(self) -> list[Any]:
        return await self._rows("SELECT * FROM traces ORDER BY start_time, span_id")

    async def _rows(self, query: str) -> list[Any]:
        async with self._database.transaction() as connection:
            return list(await connection.execute(text(query)))


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database)


@pytest.fixture
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    recorder = Recorder(database)
    recorder.start()
    yield recorder
    await recorder.close()
