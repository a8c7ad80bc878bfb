"""What sandboxes print, made safe for a terminal: text and colours stay, everything else that controls it goes.

A sandbox could otherwise set the terminal's title, write to the clipboard, clear the screen, or hide what it printed.
"""

from __future__ import annotations

import re

#: The one-character forms of the beginnings and ends of sequences.
_LONG_FORMS = str.maketrans(
    {
        "\x90": "\x1bP",
        "\x98": "\x1bX",
        "\x9b": "\x1b[",
        "\x9c": "\x1b\\",
        "\x9d": "\x1b]",
        "\x9e": "\x1b^",
        "\x9f": "\x1b_",
    }
)
#: A control sequence or character. The parts of a sequence cannot overlap, so that a search takes linear time.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, and the cursor
    r"|\x1b[\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\)?"  # OSC and other strings: titles, the clipboard
    r"|\x1b[ -/]*[0-~]?"
    r"|\r\n?"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
#: The beginning of a sequence whose end has not arrived yet.
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\r\n]*|[ -/]*)")
#: Longest beginning that is kept for the next text.
_HELD = 8192


class Sanitiser:
    """Sanitises a text that comes in pieces, which may divide a sequence."""

    def __init__(self) -> None:
        self._held = ""

    def __call__(self, text: str) -> str:
        """Return what of the text so far may be printed now."""
        text = self._held + text.translate(_LONG_FORMS)
        self._held = ""
        last = max(text.rfind("\x1b"), len(text) - 1 if text.endswith("\r") else -1)
        if last >= 0 and (text[last] == "\r" or _UNFINISHED.fullmatch(text, last)):
            text, self._held = text[:last], text[last:][:_HELD]
        return _CONTROL.sub(_kept, text)


def coloured(text: str) -> str:
    """Return a whole text with its colours, and without other control sequences."""
    return _CONTROL.sub(_kept, text.translate(_LONG_FORMS))


def _kept(match: re.Match[str]) -> str:
    if match[0][0] == "\r":
        return "\n"
    return match[0] if _COLOUR.fullmatch(match[0]) else ""
