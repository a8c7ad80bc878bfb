"""Levels of lines that programs print, read from the text. The console has the same rule (`console/src/log/level.ts`).

The first word in the beginning of a line that names a level decides, as in `2026-11-30 12:00:00 WARNING disk` or
`[ERROR] no such table`. A line without such a word has no level.
"""

from __future__ import annotations

import re
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]

#: The words by level, the least severe first.
WORDS: Final[dict[Level, tuple[str, ...]]] = {
    "debug": ("trace", "debug", "verbose"),
    "info": ("info", "notice"),
    "warning": ("warn", "warning"),
    "error": ("err", "error", "critical", "fatal", "panic", "exception", "traceback"),
}
#: How many characters of a line are looked at.
LOOKED_AT: Final = 100
#: Alternatives of a regular expression, and colours of terminals. PostgreSQL and Python read both alike.
ANY_WORD: Final = "|".join(word for words in WORDS.values() for word in words)
COLOURS: Final = r"\x1b\[[0-9;]*m"
_WORD = re.compile(rf"\b({ANY_WORD})\b")
_COLOURS = re.compile(COLOURS)


def words_from(level: Level) -> frozenset[str]:
    """The words of a level and of those that are more severe."""
    names = list(WORDS)
    return frozenset(word for name in names[names.index(level) :] for word in WORDS[name])


def level_word(line: str) -> str | None:
    """The word that gives a line its level, in lower case; None if there is none."""
    found = _WORD.search(_COLOURS.sub("", line[: 2 * LOOKED_AT])[:LOOKED_AT].lower())
    return found[1] if found else None
