"""Keyset cursors: the position of the last item of a page, as text that clients pass on unchanged.

Lists are ordered newest first by a time and a key that are unique together. A page that continues after the cursor
neither repeats nor leaves out an item, however many have been added since.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from sandbox.errors import InvalidInput

#: The time and the key of an item. The time is timezone-aware.
Cursor = tuple[datetime, str]

ItemT = TypeVar("ItemT")
KeyT = TypeVar("KeyT")


def encode_cursor(cursor: Cursor) -> str:
    """The cursor as URL-safe text."""
    time, key = cursor
    return base64.urlsafe_b64encode(json.dumps([time.isoformat(), key]).encode()).decode().rstrip("=")


def decode_cursor(text: str, key_type: Callable[[str], KeyT]) -> tuple[datetime, KeyT]:
    """The cursor that `encode_cursor` made, its time in UTC.

    `key_type` reads the key and raises ValueError for one that is not valid. Raises InvalidInput for any other
    text. Example: `decode_cursor(text, UUID)`.
    """
    try:
        time, key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        moment = datetime.fromisoformat(time)
        if moment.tzinfo is None or not isinstance(key, str) or "\0" in key:
            raise invalid_cursor()
        return moment.astimezone(UTC), key_type(key)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise invalid_cursor() from error


def next_cursor(items: Sequence[ItemT], limit: int, cursor_of: Callable[[ItemT], Cursor]) -> str | None:
    """The cursor after a page of at most `limit` items; None if the page is not full, which makes it the last one."""
    return encode_cursor(cursor_of(items[-1])) if len(items) == limit else None


def invalid_cursor(code: str = InvalidInput.code) -> InvalidInput:
    """The error for a cursor that is malformed or belongs to another list."""
    return InvalidInput("cursor: not one that this list gave.", hint="Pass next_cursor on unchanged.", code=code)
