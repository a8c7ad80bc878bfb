"""The bytes of server-sent events."""

import json
from datetime import UTC, datetime

from sandbox.events.sse import encode_event, encode_id


def test_an_event_has_id_type_and_one_line_of_json() -> None:
    assert encode_event("log", {"line": "a\nb\r\u00e9"}, event_id=7) == (
        'id: 7\nevent: log\ndata: {"line":"a\\nb\\r\u00e9"}\n\n'.encode()
    )


def test_characters_at_which_careless_clients_split_lines_are_escaped() -> None:
    line = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\rj"
    (_, _, data) = encode_event("log", {"line": line}, event_id=1).decode().rstrip("\n").splitlines()
    assert json.loads(data.removeprefix("data: ")) == {"line": line}


def test_text_that_is_not_unicode_is_replaced() -> None:
    assert encode_event("log", "\ud800", event_id="a") == b'id: a\nevent: log\ndata: "?"\n\n'


def test_other_objects_are_converted_by_default() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert b'data: "2026-01-02' in encode_event("log", moment, event_id=1, default=lambda value: value.isoformat())


def test_an_id_alone_is_no_event() -> None:
    assert encode_id("3/4") == b"id: 3/4\n\n"
