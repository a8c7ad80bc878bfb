"""Server-sent events as bytes (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Heartbeat comments are not made here: `event_stream` in `api/http/streams.py` sends them for every stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

#: Characters at which clients split lines although the specification does not. JSON can write them as escapes.
_LINE_ENDS = {character: f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


def encode_event(event: str, data: Any, *, event_id: str | int, default: Callable[[Any], Any] | None = None) -> bytes:
    """One event: its id, its type and `data` as one line of JSON.

    `event` and `event_id` must not contain line breaks. `default` converts objects that JSON does not know, as in
    `json.dumps`. A character that is not valid Unicode is sent as `?`.
    """
    body = _encode(data, default)
    for character, escaped in _LINE_ENDS.items():
        # Takes no time if the text is ASCII. `str.translate` would need 10 ms for 256 KiB that are not.
        body = body.replace(character, escaped)
    return f"id: {event_id}\nevent: {event}\ndata: {body}\n\n".encode("utf-8", "replace")


def _encode(data: Any, default: Callable[[Any], Any] | None) -> str:
    try:
        return orjson.dumps(data, default, orjson.OPT_PASSTHROUGH_DATETIME).decode()
    except orjson.JSONEncodeError:  # such as a character that is not valid Unicode, or a number beyond 64 bits
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=default)


def encode_id(event_id: str | int) -> bytes:
    """An id without an event: moves the client's `Last-Event-ID` forward while there is nothing to send."""
    return f"id: {event_id}\n\n".encode()
