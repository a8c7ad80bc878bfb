"""Log lines followed as they are committed: none left out, none twice."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest
from httpx_sse import aconnect_sse

from sandbox.records import log_tail as tails
from sandbox.records.log_tail import LogTail, Place, Wanted

INSERT = (
    "INSERT INTO logs (level, message, user_id)"
    " SELECT 'INFO', %s || n, 'ada' FROM generate_series(%s::integer, %s::integer) AS n"
)
EVERYTHING = Wanted()


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
    """What one viewer is told: messages, and the id of the last event."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self.seen: list[str] = []
        self.last_id = ""

    async def until(self, *messages: str) -> None:
        """Read on until all of these were seen."""
        async with asyncio.timeout(30):
            while not set(messages) <= set(self.seen):
                self.take(await anext(self._stream))

    def take(self, chunk: bytes) -> None:
        for event in chunk.decode().strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in event.split("\n"))
            self.last_id = fields["id"]
            if "data" in fields:
                self.seen.append(json.loads(fields["data"])["message"])


@asynccontextmanager
async def viewer(tail, place=None, wanted=EVERYTHING):
    async with aclosing(tail.follow(wanted, place or await tail.place())) as stream:
        yield Viewer(stream)


async def test_a_line_of_a_long_open_transaction_is_told_when_it_is_committed(tail, writers):
    slow, quick = writers
    await quick.execute(INSERT, ["before ", 1, 1])
    async with viewer(tail) as one:
        await slow.execute("BEGIN")
        await slow.execute(INSERT, ["slow ", 1, 2])
        for number in range(5):
            await quick.execute(INSERT, ["quick ", number, number])
            await one.until(f"quick {number}")  # nobody waits for the slow one
        await slow.execute(INSERT, ["slow ", 3, 3])
        await slow.execute("COMMIT")
        await one.until("slow 1", "slow 2", "slow 3")
        await quick.execute(INSERT, ["last ", 1, 1])
        await one.until("last 1")
    assert one.seen == [*(f"quick {n}" for n in range(5)), "slow 1", "slow 2", "slow 3", "last 1"]


async def test_a_transaction_that_was_open_before_anybody_looked(tail, writers):
    slow, quick = writers
    await slow.execute("BEGIN")
    await slow.execute(INSERT, ["slow ", 1, 1])
    await quick.execute(INSERT, ["before ", 1, 1])
    async with viewer(tail) as one:
        await quick.execute(INSERT, ["quick ", 1, 1])
        await one.until("quick 1")
        await slow.execute("COMMIT")
        await one.until("slow 1")
    assert one.seen == ["quick 1", "slow 1"]


async def test_what_is_rolled_back_is_never_told(tail, writers):
    slow, quick = writers
    async with viewer(tail) as one:
        await slow.execute("BEGIN")
        await slow.execute(INSERT, ["slow ", 1, 3])
        await slow.execute("ROLLBACK")
        await quick.execute(INSERT, ["quick ", 1, 1])
        await one.until("quick 1")
    assert one.seen == ["quick 1"]


async def test_every_event_can_be_gone_on_from_by_whichever_replica(database, tail, writers):
    slow, quick = writers
    places: list[tuple[list[str], str]] = []
    async with viewer(tail) as one:
        await slow.execute("BEGIN")
        await slow.execute(INSERT, ["slow ", 1, 1])
        await quick.execute(INSERT, ["quick ", 1, 3])
        while len(one.seen) < 3:
            one.take(await anext(one._stream))
        places.append((list(one.seen), one.last_id))
        await slow.execute("COMMIT")
        await one.until("slow 1")
        places.append((list(one.seen), one.last_id))
        await quick.execute(INSERT, ["later ", 1, 2])
        await one.until("later 2")
        places.append((list(one.seen), one.last_id))
    whole = one.seen
    other = LogTail(database)
    for seen, last_id in places:
        async with viewer(other, Place.decode(last_id)) as again:
            await quick.execute(INSERT, ["again ", len(whole), len(whole)])
            whole = [*whole, f"again {len(whole)}"]
            await again.until(whole[-1])
        assert seen + again.seen == whole
    await other.close()


async def test_one_that_goes_on_within_a_look_misses_nothing(tail, writers):
    _, quick = writers
    async with viewer(tail) as one:
        await quick.execute(INSERT, ["x ", 1, 1200])  # one look, of several pages
        chunk = await anext(one._stream)
        first = chunk.split(b"\n\n")[0]
    one.take(first)
    async with viewer(tail, Place.decode(one.last_id)) as again:
        await again.until("x 1200")
    assert one.seen + again.seen == [f"x {n}" for n in range(1, 1201)]


async def test_a_viewer_that_fell_behind_reads_the_table(tail, writers, monkeypatch):
    monkeypatch.setattr(tails, "TAIL", 10)
    monkeypatch.setattr(tails, "PAGE", 7)
    _, quick = writers
    async with viewer(tail) as quickly, viewer(tail) as slowly:
        await quick.execute(INSERT, ["a ", 1, 1])
        await quickly.until("a 1")
        await slowly.until("a 1")
        for number in range(4):
            await quick.execute(INSERT, [f"b{number} ", 1, 25])
            await quickly.until(f"b{number} 25")
        await slowly.until("b3 25")
    assert slowly.seen == quickly.seen == ["a 1", *(f"b{m} {n}" for m in range(4) for n in range(1, 26))]


async def test_viewers_see_what_they_want_and_share_one_reader(tail, writers, database):
    _, quick = writers
    async with viewer(tail) as everything, viewer(tail, wanted=Wanted(user_id="bob")) as bobs:
        await quick.execute(INSERT, ["ada's ", 1, 1])
        await quick.execute("INSERT INTO logs (level, message, user_id) VALUES ('ERROR', 'bob''s', 'bob')")
        await everything.until("bob's")
        await bobs.until("bob's")
        assert sum(task.get_name() == "log tail" for task in asyncio.all_tasks()) == 1
    assert (everything.seen, bobs.seen) == (["ada's 1", "bob's"], ["bob's"])
    await asyncio.sleep(0)
    assert not any(task.get_name() == "log tail" for task in asyncio.all_tasks())


async def test_a_quiet_viewer_is_told_where_it_is(tail, writers, monkeypatch):
    monkeypatch.setattr(tails, "PLACE_SECONDS", 0.0)
    _, quick = writers
    async with viewer(tail, wanted=Wanted(level="ERROR")) as one:
        await quick.execute(INSERT, ["x ", 1, 5])
        low = int((await (await quick.execute("SELECT max(log_id) FROM logs")).fetchone())[0])
        async with asyncio.timeout(30):
            while not one.last_id or Place.decode(one.last_id).low < low:
                one.take(await anext(one._stream))
    assert one.seen == []


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
            # What is written once the answer has begun is told.
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


async def test_nobody_follows_what_others_log(ada):
    answer = await ada.get("/api/v1/logs/tail", params={"user_id": "bob"})
    assert (answer.status_code, answer.json()["code"]) == (403, "admin_required")


@pytest.mark.parametrize(
    "last_id",
    [
        "x",
        "1",
        "9" * 30,
        "1/1/1:1:/x",
        "1/1/5:4:/5:5:",
        "1/1/0:1:/1:1:",
        "1/1/1:9:5,5/1:9:",
        "1/1/1:9:12/1:9:",
        "1/1/9999999999999999999:9999999999999999999:/1:1:",
    ],
)
async def test_ids_that_are_none_of_this_stream(ada, last_id):
    answer = await ada.get("/api/v1/logs/tail", headers={"Last-Event-ID": last_id})
    assert (answer.status_code, answer.json()["code"]) == (422, "event_id_invalid")
