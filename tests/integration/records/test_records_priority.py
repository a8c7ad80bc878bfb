"""What is done for records gives way to whoever is answered."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from sandbox.db.driver import connect, connection_params
from sandbox.telemetry.otlp.priority import NICE, local_backend

AUTOGROUP = Path("/proc/self/autogroup")
RECORD = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "one"}}]}]}]}


@pytest.fixture
async def through_another(dsn: str) -> AsyncIterator[str]:
    """The database by a socket at whose other end another process listens: this one."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_unix_connection(f"{conninfo_to_dict(dsn)['host']}/.s.PGSQL.5432")

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
            target.close()

        await asyncio.gather(pump(reader, here), pump(there, writer))

    with tempfile.TemporaryDirectory(prefix="p8-", dir="/tmp") as folder:
        async with await asyncio.start_unix_server(pass_on, f"{folder}/.s.PGSQL.5432"):
            yield psycopg.conninfo.make_conninfo(dsn, host=folder)


async def test_the_process_in_postgresql_that_writes_records_gives_way(ada, database):
    assert (await ada.post("/v1/logs", json=RECORD)).status_code == 200
    named = text("SELECT application_name, pid FROM pg_stat_activity WHERE datname = current_database()")
    async with database.read() as connection:
        found = [tuple(row) for row in await connection.execute(named)]
    ours = [pid for name, pid in found if name == "purple8-sandbox"]
    theirs = [pid for name, pid in found if name == "purple8-sandbox intake"]
    assert ours
    assert theirs
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in theirs} == {NICE}
    assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in ours} == {0}
    if AUTOGROUP.exists():
        for pid in theirs:
            assert Path(f"/proc/{pid}/autogroup").read_text().endswith(f"nice {NICE}\n")


async def test_a_process_is_only_taken_for_the_servers_where_it_is(dsn, through_another):
    async with await connect(connection_params(dsn)) as connection:
        assert local_backend(connection) == connection.info.backend_pid
    async with await connect(connection_params(through_another)) as connection:
        assert Path(f"/proc/{connection.info.backend_pid}").exists()
        assert local_backend(connection) is None
