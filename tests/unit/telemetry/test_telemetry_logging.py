"""Console lines, rows of the recording handler, and the cleaning of their values."""

from __future__ import annotations

import asyncio
import json
import logging
import os

import pytest

from sandbox.telemetry import context
from sandbox.telemetry.logging import ConsoleFormatter, RecordingHandler
from sandbox.telemetry.recorder import writing
from sandbox.telemetry.rows import MAX_JSON, LogRow, clean_json, clean_text


class Rows:
    """A recorder that stores the rows in a list."""

    def __init__(self) -> None:
        self.rows: list[LogRow] = []

    def add_log(self, row) -> None:
        self.rows.append(row)


@pytest.fixture
def rows():
    return Rows()


@pytest.fixture
def logger(rows):
    logger = logging.Logger("tests", logging.DEBUG)
    logger.addHandler(RecordingHandler(rows))
    return logger


def record(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("sandbox.x", level, __file__, 1, message, args, None)


def test_console_line_is_one_line_whatever_is_logged():
    line = ConsoleFormatter(colour=False).format(record("a %s", "\r\nERROR forged\x1b[2J\x9b"))
    assert line.isprintable()
    assert line.endswith(r"INFO     sandbox.x: a \x0d\x0aERROR forged\x1b[2J\x9b")


def test_console_line_names_request_and_session():
    with context.bind(request_id="r-1"), context.bind(session_id="s-1"):
        line = ConsoleFormatter(colour=False).format(record("hello"))
    assert line.endswith("hello request=r-1 session=s-1")
    assert "request" not in ConsoleFormatter(colour=False).format(record("hello"))


def test_only_terminals_get_colours():
    assert "\x1b[33mWARNING \x1b[0m" in ConsoleFormatter(colour=True).format(record("x", level=logging.WARNING))


def test_an_error_is_recorded_with_its_stack(logger, rows):
    try:
        os.environ["LOST"]
    except KeyError:
        logger.exception("failed")
    (row,) = rows.rows
    assert row.level == "ERROR"
    assert row.stack_trace.startswith("Traceback")
    assert row.stack_trace.endswith("KeyError: 'LOST'")


@pytest.mark.parametrize(
    ("number", "level"), [(1, "DEBUG"), (15, "DEBUG"), (25, "INFO"), (35, "WARNING"), (45, "ERROR"), (99, "CRITICAL")]
)
def test_levels_are_mapped_to_the_documented_ones(logger, rows, number, level):
    logger.setLevel(1)
    logger.log(number, "x")
    assert rows.rows[0].level == level


def test_a_message_that_cannot_be_formatted_does_not_raise(logger, rows, capsys):
    logger.info("%d", "no number")
    logger.info("still here")
    assert [row.message for row in rows.rows] == ["still here"]
    assert "Logging error" in capsys.readouterr().err


def test_logging_while_a_record_is_handled_does_not_recurse(logger, rows):
    class Chatty:
        def __str__(self) -> str:
            logger.info("again %s", self)
            return "chatty"

    logger.info("%s", Chatty())
    assert [row.message for row in rows.rows] == ["chatty"]


def test_log_lines_of_the_writing_recorder_are_not_recorded(logger, rows):
    token = writing.set(True)
    logger.error("from the driver")
    writing.reset(token)
    assert rows.rows == []


async def test_the_context_follows_tasks_and_threads_and_ends_with_its_block(logger, rows):
    with context.bind(request_id="r-1"):
        task = asyncio.create_task(asyncio.to_thread(logger.info, "x"))
        context.set_user("ada")
        await task
        with context.bind(session_id="s"):
            assert context.current() == context.LogContext("r-1", "ada", "s")
        assert context.current().session_id is None
    context.set_user("nobody")
    assert context.current() == context.LogContext()
    (row,) = rows.rows
    assert (row.request_id, row.user_id) == ("r-1", "ada")


def test_json_columns_are_valid_and_bounded():
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

    loop: list[object] = []
    loop.append(loop)
    for value in ({"a": Hostile()}, loop, {"a": "x" * 10**6}, {str(n): "y" * 8000 for n in range(100)}, {1: {2, 3}}):
        text = clean_json(value)
        json.loads(text)
        assert len(text) <= MAX_JSON
    assert json.loads(clean_json({"inf": float("inf"), "none": None, "yes": True})) == {
        "inf": "inf",
        "none": None,
        "yes": True,
    }


def test_text_is_cut_to_the_column():
    assert clean_text("x" * 100, 100) == "x" * 100
    assert clean_text("x" * 101, 100) == "x" * 99 + "…"
    assert clean_text("a\0b\udc80c", 100) == "a\N{REPLACEMENT CHARACTER}b?c"
