"""Lists: newest first, continued where the last page ended, however much has been added since."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from sandbox.errors import InvalidInput

MAX_LIMIT = 500

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most items on a page")]
CursorText = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before")]
#: Time and key of the last item seen: unique together, and the order of the list.
Cursor = tuple[datetime, str]


ItemT = TypeVar("ItemT")


class Page(BaseModel, Generic[ItemT]):
    items: list[ItemT]
    next_cursor: str | None = None


def encode_cursor(cursor: Cursor) -> str:
    """Opaque text of a place in a list."""
    time, key = cursor
    return base64.urlsafe_b64encode(json.dumps([time.isoformat(), key]).encode()).decode().rstrip("=")


def decode_cursor(text: str | None) -> Cursor | None:
    """The place that `encode_cursor` wrote down. Raises InvalidInput for anything else."""
    if text is None:
        return None
    try:
        time, key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        cursor = datetime.fromisoformat(time), key
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise cursor_refused() from error
    if not isinstance(key, str) or "\0" in key or cursor[0].tzinfo is None:
        raise cursor_refused()
    return cursor


def next_cursor(items: Sequence[ItemT], limit: int, place: Callable[[ItemT], Cursor]) -> str | None:
    """The cursor after a full page; None after the last one, told by its being short."""
    return encode_cursor(place(items[-1])) if len(items) == limit else None


def cursor_refused() -> InvalidInput:
    return InvalidInput("cursor: not one that this list gave.", hint="Pass next_cursor on unchanged.")
