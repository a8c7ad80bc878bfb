"""What sandboxes print, made safe for a terminal: text and colours stay, everything else that controls it goes.

A sandbox could otherwise set the terminal's title, write to the clipboard, clear the screen, or hide what it printed.
In an interactive shell, programs also move the cursor and clear the screen; there, only what reaches beyond the window
goes, and what the terminal would answer as if it had been typed.
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
#: CSI sequences that the terminal answers (device attributes and status, settings, version), that resize the window or
#: report its title, that print, or that load keys.
_BEYOND_WINDOW = re.compile(r"\x1b\[(?:[^a-zA-Z@-~]*[cntxi]|>[^a-zA-Z@-~]*q|[^a-zA-Z@-~]*\$[py])")
#: The beginnings of strings: DCS, SOS, OSC, PM and APC, and their end, which may arrive alone.
_STRINGS = frozenset({"\x1bP", "\x1bX", "\x1b]", "\x1b^", "\x1b_", "\x1b\\"})
_ENQUIRY = "\x05"
#: The beginning of a sequence whose end has not arrived yet.
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b\r\n]*|[ -/]*)")
#: Longest beginning that is kept for the next text.
_HELD = 8192


class Sanitiser:
    """Sanitises a text that comes in pieces, which may divide a sequence.

    With `interactive`, for a shell in a terminal of its own, sequences stay that have an effect in the window only.
    """

    def __init__(self, *, interactive: bool = False) -> None:
        self._held = ""
        self._kept = _kept_in_window if interactive else _kept

    def __call__(self, text: str) -> str:
        """Return what of the text so far may be printed now."""
        text = self._held + text.translate(_LONG_FORMS)
        self._held = ""
        last = max(text.rfind("\x1b"), len(text) - 1 if text.endswith("\r") else -1)
        if last >= 0 and (text[last] == "\r" or _UNFINISHED.fullmatch(text, last)):
            text, self._held = text[:last], text[last:][:_HELD]
        return _CONTROL.sub(self._kept, text)


def coloured(text: str) -> str:
    """Return a whole text with its colours, and without other control sequences."""
    return _CONTROL.sub(_kept, text.translate(_LONG_FORMS))


def _kept(match: re.Match[str]) -> str:
    if match[0][0] == "\r":
        return "\n"
    return match[0] if _COLOUR.fullmatch(match[0]) else ""


def _kept_in_window(match: re.Match[str]) -> str:
    found = match[0]
    if found[:2] in _STRINGS or found == _ENQUIRY:
        return ""
    return "" if _BEYOND_WINDOW.fullmatch(found) else found
