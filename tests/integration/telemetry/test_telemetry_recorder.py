"""The recorder: all kinds of rows are written, also when PostgreSQL is down for a while."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from sqlalchemy import text

from sandbox.db.connection import Database
from sandbox.db.embedded import EmbeddedPostgres
from sandbox.db.migrations import migrate
from sandbox.telemetry.recorder import Dropped, Recorder
from sandbox.telemetry.rows import LogRow, SpanRow

START = datetime(2026, 11, 20, 12, 30, 15, 250_000, tzinfo=UTC)


def log(message: str, **fields: object) -> LogRow:
    return LogRow(timestamp=START, level="INFO", service="test", message=message, **fields)  # type: ignore[arg-type]


def span(span_id: str, **fields: object) -> SpanRow:
    given: dict[str, object] = {
        "trace_id": "a" * 32,
        "span_id": span_id,
        "parent_span_id": None,
        "operation_name": "op",
        "service_name": "test",
        "start_time": START,
        "end_time": START + timedelta(milliseconds=40),
        "duration_ms": 40,
        "status": "success",
    }
    return SpanRow(**(given | fields))  # type: ignore[arg-type]


async def test_rows_arrive_with_every_column(recorder, records):
    recorder.add_log(
        log("hello", stack_trace="Trace", request_id="r-1", user_id="ada", metadata={"a": [1, {"b": "ü"}]})
    )
    recorder.add_span(span("b" * 16, parent_span_id="c" * 16, tags={"n": 1}, logs=[{"name": "x"}]))
    assert await recorder.flush()
    (line,) = await records.logs()
    assert (line.timestamp, line.level, line.service, line.message) == (START, "INFO", "test", "hello")
    assert (line.stack_trace, line.request_id, line.user_id) == ("Trace", "r-1", "ada")
    assert line.metadata == {"a": [1, {"b": "ü"}]}
    (stored,) = await records.spans()
    assert (stored.trace_id, stored.span_id, stored.parent_span_id) == ("a" * 32, "b" * 16, "c" * 16)
    assert (stored.start_time, stored.end_time) == (START, START + timedelta(milliseconds=40))
    assert (stored.duration_ms, stored.status, stored.tags, stored.logs) == (40, "success", {"n": 1}, [{"name": "x"}])
    assert recorder.waiting == 0


async def test_rows_are_written_without_a_flush(recorder, records):
    recorder.add_log(log("by itself"))
    while not await records.logs():
        await asyncio.sleep(0.05)
    recorder.add_log(log("and again"))
    while len(await records.logs()) < 2:
        await asyncio.sleep(0.05)


async def test_rows_added_before_the_start_are_written(database, records):
    recorder = Recorder(database)
    recorder.add_log(log("early"))
    recorder.start()
    await recorder.close()
    assert [line.message for line in await records.logs()] == ["early"]


async def test_many_threads_add_rows_at_once(recorder, records):
    def add(number: int) -> None:
        for index in range(400):
            recorder.add_log(log(f"{number}-{index}"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.01)
    assert await recorder.flush()
    messages = [line.message for line in await records.logs()]
    assert sorted(messages) == sorted(f"{number}-{index}" for number in range(5) for index in range(400))
    for number in range(5):  # each thread's lines in its own order
        assert [m for m in messages if m.startswith(f"{number}-")] == [f"{number}-{index}" for index in range(400)]


async def test_text_that_postgresql_refuses_is_cleaned(recorder, records):
    recorder.add_log(
        log(
            "nul \0 and lone \ud800 surrogate",
            request_id="r" * 300,
            metadata={"nul\0": "\0", "nan": float("nan"), "huge": 10**5000, "what": Path("x"), "deep": _nested(50)},
        )
    )
    recorder.add_log(log("tab\tnewline\nbackslash\\N \\."))
    recorder.add_log(log("x" * 1_000_000))
    recorder.add_span(span("d" * 16, operation_name="o" * 500, service_name="s" * 500, duration_ms=10**15))
    assert await recorder.flush()
    first, second, third = await records.logs()
    assert first.message.startswith("nul \ufffd and lone ")
    assert len(first.request_id) == 100
    assert first.metadata.pop("deep")["in"]["in"]
    assert first.metadata == {"nul\ufffd": "\ufffd", "nan": "nan", "huge": "an integer of 16610 bits", "what": "x"}
    assert second.message == "tab\tnewline\nbackslash\\N \\."
    assert len(third.message) == 65_536
    (stored,) = await records.spans()
    assert (len(stored.operation_name), len(stored.service_name), stored.duration_ms) == (200, 100, 2**31 - 1)
    assert not recorder.dropped


def _nested(depth: int) -> dict[str, object]:
    return {"in": _nested(depth - 1)} if depth else {}


async def test_only_a_refused_row_is_dropped_and_it_is_logged(recorder, records):
    for index in range(20):
        recorder.add_log(log(f"line {index}"))
    recorder.add_log(LogRow(timestamp=START, level="SHOUTED", service="test", message="no such level"))
    recorder.add_span(span("e" * 16))
    recorder.add_span(span("f" * 16, status="no such status"))
    assert await recorder.flush()
    assert [line.message for line in await records.logs()] == [f"line {index}" for index in range(20)]
    assert [span.span_id for span in await records.spans()] == ["e" * 16]
    assert recorder.dropped == Dropped(logs=1, spans=1)


async def test_a_span_that_is_stored_already_does_not_affect_its_batch(recorder, records):
    recorder.add_span(span("1" * 16, tags={"which": "first"}))
    assert await recorder.flush()
    recorder.add_log(log("with it"))
    recorder.add_span(span("1" * 16, tags={"which": "second"}))
    recorder.add_span(span("2" * 16))
    recorder.add_span(span("2" * 16))
    assert await recorder.flush()
    spans = await records.spans()
    assert [(span.span_id, span.tags) for span in spans] == [("1" * 16, {"which": "first"}), ("2" * 16, {})]
    assert [line.message for line in await records.logs()] == ["with it"]
    assert not recorder.dropped


async def test_rows_go_to_the_partition_of_their_day(recorder, database):
    recorder.add_log(LogRow(timestamp=datetime.now(UTC), level="INFO", service="test", message="today"))
    recorder.add_log(log("long ago"))
    assert await recorder.flush()
    async with database.transaction() as connection:
        rows = await connection.execute(text("SELECT message, tableoid::regclass::text AS part FROM logs"))
        parts = {row.message: row.part for row in rows}
    assert parts["long ago"] == "logs_default"
    assert parts["today"].startswith("logs_p")


async def test_no_row_is_lost_while_postgresql_is_down(short_folder: Path, caplog):
    cluster = EmbeddedPostgres(short_folder / "away")
    dsn = await cluster.start()
    await migrate(dsn)
    database = Database(dsn)
    recorder = Recorder(database)
    recorder.start()
    try:
        recorder.add_log(log("before"))
        assert await recorder.flush()
        await cluster.stop()
        for index in range(700):
            recorder.add_log(log(f"meanwhile {index}"))
            recorder.add_span(span(f"{index:016x}"))
        assert not await recorder.flush(timeout_seconds=0.5)
        assert recorder.waiting == 1400
        await cluster.start()
        assert await recorder.flush(timeout_seconds=60)
        assert not recorder.dropped
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            lines = await (await connection.execute("SELECT message FROM logs ORDER BY log_id")).fetchall()
            count = await (await connection.execute("SELECT count(*) FROM traces")).fetchone()
        assert [line[0] for line in lines] == ["before", *(f"meanwhile {index}" for index in range(700))]
        assert count == (700,)
        messages = [record.getMessage() for record in caplog.records if record.name == "sandbox.telemetry.recorder"]
        assert len([line for line in messages if line.startswith("logs and spans cannot be written")]) == 1
    finally:
        await recorder.close()
        await database.close()
        await cluster.stop()


async def test_rows_beyond_the_bound_are_counted_and_logged(database, records, caplog):
    recorder = Recorder(database, max_rows=50)
    for index in range(80):
        recorder.add_log(log(f"line {index}"))
        recorder.add_span(span(f"{index:016x}"))
    assert recorder.dropped == Dropped(logs=30, spans=30)
    recorder.start()
    assert await recorder.flush()
    await recorder.close()
    assert len(await records.logs()) == 50
    assert "30 log lines and 30 spans were not recorded" in caplog.messages


async def test_the_queue_is_bounded_by_bytes(database):
    recorder = Recorder(database, max_bytes=1_000_000)
    for _ in range(30):
        recorder.add_log(log("x" * 50_000))
    assert recorder.waiting == 19
    assert recorder.dropped == Dropped(logs=11, spans=0)


async def test_close_ends_in_time_when_postgresql_is_down(caplog):
    database = Database("postgresql://nobody@127.0.0.1:1/none")
    recorder = Recorder(database)
    recorder.start()
    recorder.add_log(log("never written"))
    await recorder.close(timeout_seconds=0.3)
    assert recorder.dropped == Dropped(logs=1, spans=0)
    assert "1 log lines and 0 spans were not recorded" in caplog.messages
    recorder.add_log(log("after the end"))
    assert recorder.dropped == Dropped(logs=2, spans=0)
    await database.close()


async def test_rows_wait_for_a_table_that_does_not_exist_yet(recorder, records, database):
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE logs RENAME TO logs_elsewhere"))
    recorder.add_log(log("patient"))
    assert not await recorder.flush(timeout_seconds=0.5)
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE logs_elsewhere RENAME TO logs"))
    assert await recorder.flush(timeout_seconds=30)
    assert [line.message for line in await records.logs()] == ["patient"]
