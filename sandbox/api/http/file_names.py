"""Names of files as text: names on Linux are bytes, and those that are not UTF-8 have no text of their own.

A byte that cannot be decoded is shown as U+FFFD with its two hexadecimal digits (`caf\ufffde9.txt`), and U+FFFD itself
twice, so that every name that is shown leads to its file again. Inside the service such a byte is a lone surrogate, as
everywhere in Python, which no UTF-8 text may contain.
"""

from __future__ import annotations

import re

_MARK = "\ufffd"
_UNDECODABLE = re.compile("[\udc80-\udcff\ufffd]")
_SHOWN = re.compile("\ufffd(\ufffd|[89a-f][0-9a-f])")


def shown_name(path: str) -> str:
    """Return the text of a path, without lone surrogates."""
    return _UNDECODABLE.sub(
        lambda match: _MARK * 2 if match[0] == _MARK else f"{_MARK}{ord(match[0]) - 0xDC00:02x}", path
    )


def meant_name(text: str) -> str:
    """Return the path that a client means; the reverse of `shown_name`."""
    return _SHOWN.sub(lambda match: _MARK if match[1] == _MARK else chr(0xDC00 + int(match[1], 16)), text)
