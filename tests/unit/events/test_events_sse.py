"""The bytes of server-sent events."""

from datetime import UTC, datetime

from sandbox.events.sse import encode_event, encode_id


def test_an_event_has_id_type_and_one_line_of_json() -> None:
    assert encode_event("log", {"line": "a\nb\r\u00e9"}, event_id=7) == (
        'id: 7\nevent: log\ndata: {"line":"a\\nb\\r\u00e9"}\n\n'.encode()
    )


def test_text_that_is_not_unicode_is_replaced() -> None:
    assert encode_event("log", "\ud800", event_id="a") == b'id: a\nevent: log\ndata: "?"\n\n'


def test_other_objects_are_converted_by_default() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert b'data: "2026-01-02' in encode_event("log", moment, event_id=1, default=lambda value: value.isoformat())


def test_an_id_alone_is_no_event() -> None:
    assert encode_id("3/4") == b"id: 3/4\n\n"
