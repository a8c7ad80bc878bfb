"""Text from outside (log lines, test names, error messages), made safe to be quoted in a lesson."""

from __future__ import annotations

import re
import unicodedata

MAX_QUOTE = 160
MAX_SIGNATURE = 200
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")
_QUOTES = str.maketrans({'"': "'", "“": "'", "”": "'", "„": "'", "«": "'", "»": "'", "`": "'"})

#: What is taken out of a message, in this order, and what stands in its place.
_PARTICULARS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"]+", re.IGNORECASE), "<url>"),
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"(?:[A-Za-z]:)?(?:[\\/][\w.@+~-]+){2,}[\\/]?"), "<path>"),
    (re.compile(r"\b(?:0x[0-9a-f]+|(?=[a-f]*\d)[0-9a-f]{7,64})\b", re.IGNORECASE), "<hash>"),
    (re.compile(r"\bv?\d+(?:\.\d+)+(?:[-+.]?[a-z]\w*)*", re.IGNORECASE), "<version>"),
    (re.compile(r"\d+"), "<n>"),
)


def plain(text: str) -> str:
    """The text on one line: without terminal sequences and invisible characters, with white space collapsed."""
    visible = "".join(
        " " if char in "\t\n\r\f\v" or unicodedata.category(char) in ("Zl", "Zp", "Zs") else char
        for char in _ESCAPES.sub("", text)
        if char in "\t\n\r\f\v" or unicodedata.category(char)[0] != "C"
    )
    return " ".join(visible.split())


def quote(text: str) -> str:
    """The text between quotation marks, on one line and shortened. It cannot end the quotation: quotation marks in it
    become apostrophes."""
    shown = plain(text).translate(_QUOTES)
    return f'"{shown if len(shown) <= MAX_QUOTE else shown[: MAX_QUOTE - 1] + "…"}"'


def normalise(text: str) -> str:
    """A message without what differs from one occurrence to the next: numbers, paths, hashes, versions, URLs."""
    shown = plain(text[:4000])
    for pattern, placeholder in _PARTICULARS:
        shown = pattern.sub(placeholder, shown)
    return shown[:MAX_SIGNATURE]
