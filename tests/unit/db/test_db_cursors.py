"""Cursors: what was encoded is decoded again, anything else is refused."""

import base64
import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from sandbox.db.cursors import decode_cursor, encode_cursor, next_cursor
from sandbox.errors import InvalidInput

TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def encoded(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "e30", "W10", "WzEsMl0", "\u00fc", "WyIyMDI2LTAxLTAxIiwiYSJd", "=" * 20),
        encoded("2026-01-02T03:04:05", "no time zone"),
        encoded("9999-12-31T23:59:59-14:00", "beyond the calendar"),
        encoded(TIME.isoformat(), "a\0b"),
        encoded(TIME.isoformat(), 1),
    ],
)
def test_malformed_cursors_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        decode_cursor(text, str)


def test_a_cursor_is_decoded_to_what_was_encoded() -> None:
    assert decode_cursor(encode_cursor((TIME, "key")), str) == (TIME, "key")
    key = uuid4()
    assert decode_cursor(encode_cursor((TIME, str(key))), UUID) == (TIME, key)


def test_a_key_of_another_type_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        decode_cursor(encode_cursor((TIME, "no uuid")), UUID)


def test_only_a_full_page_has_a_next_cursor() -> None:
    items = [(TIME, "a"), (TIME, "b")]
    assert next_cursor(items, 2, lambda item: item) == encode_cursor(items[-1])
    assert next_cursor(items, 3, lambda item: item) is None
