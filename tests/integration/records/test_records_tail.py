"""Following log lines as they are committed: none is left out and none is sent twice."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

import httpx
import pytest
from httpx_sse import aconnect_sse
from sqlalchemy import text

from sandbox.records import log_lines, log_tail, store
from sandbox.records.log_lines import LogFilter, Position
from sandbox.records.log_tail import LogTail

INSERT = (
    "INSERT INTO logs (level, message, user_id)"
    " SELECT 'INFO', %s || n, 'ada' FROM generate_series(%s::integer, %s::integer) AS n"
)
EVERYTHING = LogFilter()


@pytest.fixture
async def tail(database):
    tail = LogTail(database)
    yield tail
    await tail.close()


@pytest.fixture
async def writers(database):
    """Two connections of their own."""
    async with database.connect_raw() as one, database.connect_raw() as other:
        yield one, other


class Viewer:
    """Reads one stream: the messages received, and the id of the last event."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self.received: list[str] = []
        self.last_id = ""

    async def until(self, *messages: str) -> None:
        """Read until all of these were received."""
        async with asyncio.timeout(30):
            while not set(messages) <= set(self.received):
                await self.read()

    async def read(self) -> None:
        self.add(await anext(self._stream))

    def add(self, chunk: bytes) -> None:
        for event in chunk.decode().strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in event.split("\n"))
            self.last_id = fields["id"]
            if "data" in fields:
                self.received.append(json.loads(fields["data"])["message"])


@asynccontextmanager
async def viewer(tail, position=None, wanted=EVERYTHING):
    async with aclosing(tail.follow(wanted, position or await tail.position())) as stream:
        yield Viewer(stream)


async def test_lines_are_sent_once_all_earlier_transactions_have_ended(tail, writers):
    slow, quick = writers
    await quick.execute(INSERT, ["before ", 1, 1])
    async with viewer(tail) as one:
        await quick.execute(INSERT, ["quick ", 1, 2])
        await one.until("quick 2")
        await slow.execute("BEGIN")
        await slow.execute(INSERT, ["slow ", 1, 2])
        await quick.execute(INSERT, ["later ", 1, 1])
        await slow.execute(INSERT, ["slow ", 3, 3])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.shield(reading := asyncio.create_task(one.read()))
        await slow.execute("COMMIT")
        await reading
        await one.until("later 1")
    assert one.received == ["quick 1", "quick 2", "slow 1", "slow 2", "slow 3", "later 1"]


async def test_a_transaction_that_began_before_the_first_viewer(tail, writers):
    slow, quick = writers
    await quick.execute(INSERT, ["before ", 1, 1])
    await slow.execute("BEGIN")
    await slow.execute(INSERT, ["slow ", 1, 1])
    async with viewer(tail) as one:
        await quick.execute(INSERT, ["quick ", 1, 1])
        await slow.execute("COMMIT")
        await one.until("quick 1")
    assert one.received == ["slow 1", "quick 1"]


async def test_lines_that_are_rolled_back_are_not_sent(tail, writers):
    slow, quick = writers
    async with viewer(tail) as one:
        await slow.execute("BEGIN")
        await slow.execute(INSERT, ["slow ", 1, 3])
        await slow.execute("SAVEPOINT s")
        await slow.execute(INSERT, ["undone ", 1, 3])
        await slow.execute("ROLLBACK TO s")
        await slow.execute("COMMIT")
        await slow.execute("BEGIN")
        await slow.execute(INSERT, ["undone ", 4, 6])
        await slow.execute("ROLLBACK")
        await quick.execute(INSERT, ["quick ", 1, 1])
        await one.until("quick 1")
    assert one.received == ["slow 1", "slow 2", "slow 3", "quick 1"]


async def test_lines_of_savepoints_are_sent(tail, writers):
    slow, quick = writers
    async with viewer(tail) as one:
        await slow.execute("BEGIN")
        await slow.execute("SAVEPOINT s")
        await slow.execute(INSERT, ["under a savepoint ", 1, 2])
        await slow.execute("RELEASE s")
        await quick.execute(INSERT, ["quick ", 1, 1])
        await slow.execute("COMMIT")
        await one.until("quick 1")
    assert one.received == ["under a savepoint 1", "under a savepoint 2", "quick 1"]


async def test_every_event_is_a_position_to_resume_from_in_any_replica(database, tail, writers):
    slow, quick = writers
    positions: list[tuple[list[str], str]] = []
    async with viewer(tail) as one:
        await slow.execute("BEGIN")
        await slow.execute(INSERT, ["slow ", 1, 1])
        await quick.execute(INSERT, ["quick ", 1, 3])
        await slow.execute("COMMIT")
        while len(one.received) < 4:
            await one.read()
            positions.append((list(one.received), one.last_id))
        await quick.execute(INSERT, ["later ", 1, 2])
        await one.until("later 2")
        positions.append((list(one.received), one.last_id))
    whole = one.received
    other = LogTail(database)
    for received, last_id in positions:
        async with viewer(other, await other.position(last_id)) as again:
            await quick.execute(INSERT, ["again ", len(whole), len(whole)])
            whole = [*whole, f"again {len(whole)}"]
            await again.until(whole[-1])
        assert received + again.received == whole
    await other.close()


async def test_a_viewer_that_resumes_within_a_transaction_misses_nothing(tail, writers):
    _, quick = writers
    async with viewer(tail) as one:
        await quick.execute(INSERT, ["x ", 1, 1200])  # several pages
        chunk = await anext(one._stream)
        one.add(b"\n\n".join(chunk.split(b"\n\n")[:7]))
    async with viewer(tail, Position.decode(one.last_id)) as again:
        await again.until("x 1200")
    assert one.received + again.received == [f"x {n}" for n in range(1, 1201)]
    assert len(one.received) == 7


async def test_a_viewer_that_fell_behind_reads_the_table(tail, writers, monkeypatch):
    monkeypatch.setattr(log_tail, "TAIL_LINES", 10)
    monkeypatch.setattr(log_lines, "PAGE", 7)
    _, quick = writers
    async with viewer(tail) as quickly, viewer(tail) as slowly:
        await quick.execute(INSERT, ["a ", 1, 1])
        await quickly.until("a 1")
        await slowly.until("a 1")
        for number in range(4):
            await quick.execute(INSERT, [f"b{number} ", 1, 25])
            await quickly.until(f"b{number} 25")
        await slowly.until("b3 25")
    assert slowly.received == quickly.received == ["a 1", *(f"b{m} {n}" for m in range(4) for n in range(1, 26))]


async def test_viewers_filter_and_share_one_reader(tail, writers, database):
    _, quick = writers
    async with viewer(tail) as everything, viewer(tail, wanted=LogFilter(user_id="bob")) as bobs:
        await quick.execute(INSERT, ["ada's ", 1, 1])
        await quick.execute("INSERT INTO logs (level, message, user_id) VALUES ('ERROR', 'bob''s', 'bob')")
        await everything.until("bob's")
        await bobs.until("bob's")
        assert sum(task.get_name() == "log tail" for task in asyncio.all_tasks()) == 1
    assert (everything.received, bobs.received) == (["ada's 1", "bob's"], ["bob's"])
    await asyncio.sleep(0)
    assert not any(task.get_name() == "log tail" for task in asyncio.all_tasks())


async def test_a_viewer_without_matching_lines_gets_its_position(tail, writers, monkeypatch):
    monkeypatch.setattr(log_tail, "POSITION_SECONDS", 0.1)
    _, quick = writers
    async with viewer(tail, wanted=LogFilter(level="ERROR")) as one:
        await quick.execute(INSERT, ["x ", 1, 5])
        after = await tail.position()
        async with asyncio.timeout(30):
            while not one.last_id or Position.decode(one.last_id) < after:
                await one.read()
    assert one.received == []


async def test_a_position_ahead_of_the_database_begins_now(tail, writers):
    _, quick = writers
    now = await tail.position()
    restored = await tail.position(f"{now.transaction_id + 1_000_000}-5")
    assert now <= restored < Position(now.transaction_id + 1_000_000, 0)
    async with viewer(tail, restored) as one:
        await quick.execute(INSERT, ["x ", 1, 1])
        await one.until("x 1")


async def test_lines_from_before_transactions_were_recorded_are_not_sent(tail, writers):
    _, quick = writers
    await quick.execute("INSERT INTO logs (level, message, transaction_id) VALUES ('INFO', 'old', NULL)")
    async with viewer(tail, Position(0, 0)) as one:
        await quick.execute(INSERT, ["x ", 1, 1])
        await one.until("x 1")
    assert "old" not in one.received


async def test_pages_are_read_from_the_index_of_the_last_days(database, writers):
    """What each poll costs does not depend on how many lines there are."""
    _, quick = writers
    await quick.execute(INSERT, ["x ", 1, 20_000])
    await quick.execute("ANALYZE logs")
    await quick.execute(INSERT, ["y ", 1, 10])
    horizon = await store.log_horizon(database)
    values = {"transaction_id": horizon - 1, "log_id": 0, "horizon": horizon, "limit": 500, "since": datetime.now(UTC)}
    filters = {"user_id": None, "level": None, "service": None}
    async with database.read() as connection:
        explain = text(f"EXPLAIN (ANALYZE, COSTS OFF) {store._LOGS_AFTER}")
        plan = "\n".join((await connection.execute(explain, values | filters)).scalars())
    assert f"logs_p{datetime.now(UTC):%Y%m%d}_transaction_idx" in plan, plan


def line(message: str) -> dict[str, object]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": message}}]}]}]}


async def test_logs_are_followed_over_http(server, ada, bob):
    await ada.post("/v1/logs", json=line("before"))
    seen, last_id = [], ""
    for part in ("one", "two"):
        headers = {"X-API-Key": ada.headers["x-api-key"]} | ({"Last-Event-ID": last_id} if last_id else {})
        async with (
            httpx.AsyncClient(base_url=server, headers=headers, timeout=30, trust_env=False) as http,
            aconnect_sse(http, "GET", "/api/v1/logs/tail", params={"level": "INFO"}) as stream,
        ):
            assert stream.response.headers["content-type"].startswith("text/event-stream")
            # Lines that are written once the answer has begun are sent.
            await bob.post("/v1/logs", json=line("somebody else's"))
            for number in range(5):
                await ada.post("/v1/logs", json=line(f"{part} {number}"))
            async for event in stream.aiter_sse():
                seen.append(event.json())
                last_id = event.id
                if seen[-1]["message"] == f"{part} 4":
                    break
        await ada.post("/v1/logs", json=line(f"after {part}"))
    assert [row["message"] for row in seen] == [
        *(f"one {number}" for number in range(5)),
        "after one",
        *(f"two {number}" for number in range(5)),
    ]
    listed = (await ada.get("/api/v1/logs", params={"limit": 500})).json()["items"]
    assert seen[0] == next(row for row in listed if row["message"] == "one 0")


async def test_a_user_cannot_follow_the_logs_of_others(ada):
    answer = await ada.get("/api/v1/logs/tail", params={"user_id": "bob"})
    assert (answer.status_code, answer.json()["code"]) == (403, "admin_required")


@pytest.mark.parametrize("last_id", ["x", "1", "1-", "-1-1", "9" * 30 + "-1", "1/1/5:5:/5:5:"])
async def test_ids_of_other_streams_and_of_earlier_releases_are_refused(ada, last_id):
    answer = await ada.get("/api/v1/logs/tail", headers={"Last-Event-ID": last_id})
    assert (answer.status_code, answer.json()["code"]) == (422, "event_id_invalid")
