"""Bytes of records, reports and memory that one user may store."""

from __future__ import annotations

import asyncio

from sqlalchemy import text

from sandbox.records.space import RecordSpace
from tests.integration.records.test_records_otlp import log_body

#: `space` of the application lets a user send 10,000 bytes, and its memory holds 100,000.
REPORT = "/api/v1/coverage"


async def report(client, size: int) -> tuple[int, str | None]:
    """Send a measurement of about this many bytes; status and code of the answer."""
    body = {"component": "api", "coverage_percent": 1.0, "metadata": {"text": "x" * size}}
    answer = await client.post(REPORT, json=body)
    return answer.status_code, answer.json().get("code")


async def test_a_user_that_has_sent_too_much_is_refused_until_the_days_are_over(services, ada, bob, admin, database):
    assert await report(ada, 6_000) == await report(ada, 6_000) == (201, None)
    await services.space.flush()
    assert await report(ada, 1) == (413, "storage_limit")
    refused = await ada.post("/v1/logs", json=log_body("one"))
    assert (refused.status_code, b"storage_limit" in refused.content) == (413, True)
    assert await report(bob, 1) == await report(admin, 20_000) == (201, None)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE record_space SET day = day - 30"))
    await services.space.flush()
    assert await report(ada, 1) == (201, None)


async def test_log_lines_count(services, ada):
    assert (await ada.post("/v1/logs", json=log_body("x" * 12_000))).status_code == 200
    await services.space.flush()
    assert (await ada.post("/v1/logs", json=log_body("one"))).status_code == 413


async def test_processes_add_up(services, database):
    other = RecordSpace(database, limit=10_000, days=30)
    for space in (services.space, other):
        space.add("ada", 5_000)
        space.add("bob", 1)
    await asyncio.gather(other.flush(), services.space.flush())
    await other.flush()
    other.require("bob")
    assert other._full == {"ada": 10_000}


async def test_memory_has_a_limit_for_each_user(ada, bob, admin):
    for number in range(4):
        stored = await ada.put(f"/api/v1/memory/notes-{number}/a", json={"value": "x" * number + "y" * 9_000})
        assert stored.status_code == 200
    # Values that are stored compressed count as they are stored, those of a request as they were sent.
    refused = await ada.put("/api/v1/memory/more/a", json={"value": "x" * 60_000})
    assert (refused.status_code, refused.json()["code"]) == (413, "storage_limit")
    assert (await bob.put("/api/v1/memory/of-bob/a", json={"value": "x"})).status_code == 200
    assert (await admin.put("/api/v1/memory/notes-0/b", json={"value": "x" * 60_000})).status_code == 200
