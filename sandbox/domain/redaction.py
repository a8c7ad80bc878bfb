"""Removes the values of secrets from what sandboxes print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Shorter values are not redacted: they appear by chance in output that has nothing to do with them.
MIN_REDACTED = 8
#: What is redacted of one session at most, in lines and in characters of one and of all, so that looking for it takes
#: little time whatever the values are.
MAX_LINES, MAX_LENGTH, MAX_CHARACTERS = 500, 4096, 65_536


def redacted_lines(secrets: Mapping[str, str]) -> dict[str, str]:
    """What is redacted of these values: each of their lines that is long enough, with the name of its secret."""
    found: dict[str, str] = {}
    characters = 0
    for name, value in secrets.items():
        for line in map(str.strip, value.splitlines()):
            characters += len(line)
            if len(found) == MAX_LINES or characters > MAX_CHARACTERS:
                return found
            if MIN_REDACTED <= len(line) <= MAX_LENGTH:
                found[line] = name
    return found


class Redactor:
    """Replaces the values of secrets by `[secret NAME]` in output.

    Exact values of at least `MIN_REDACTED` characters are found, and of a value of several lines each such line. Not
    found are values that were encoded, cut, or spread over lines, and those beyond the limits of this module.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        names = redacted_lines(secrets)
        #: Values and what replaces them. Of values that begin alike the longest is replaced.
        self._marks = {value: f"[secret {names[value]}]" for value in sorted(names, key=len, reverse=True)}

    def text(self, text: str) -> str:
        """The text without values of secrets."""
        for value, mark in self._marks.items():
            text = text.replace(value, mark)
        return text

    def json(self, value: Any) -> Any:
        """The JSON value with all its texts without values of secrets. Keys stay."""
        if not self._marks:
            return value
        match value:
            case str():
                return self.text(value)
            case list() | tuple():
                return [self.json(item) for item in value]
            case dict():
                return {key: self.json(item) for key, item in value.items()}
        return value

    def unfinished(self, text: str) -> int:
        """How many characters at the end of the text may be the beginning of a value."""
        held = 0
        for value in self._marks:
            start = text.find(value[0], max(0, len(text) - len(value) + 1), len(text) - held)
            while start != -1:
                if value.startswith(text[start:]):
                    held = len(text) - start
                    break
                start = text.find(value[0], start + 1, len(text) - held)
        return held


class StreamRedactor:
    """Redacts text that arrives in pieces. What may be the beginning of a value is held back until more has come."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = ""

    def text(self, piece: str, *, end: bool = False) -> str:
        """What can be shown of the text so far and has not been returned yet; at the end all of it."""
        text = self._redactor.text(self._held + piece)
        held = 0 if end else self._redactor.unfinished(text)
        shown, self._held = text[: len(text) - held], text[len(text) - held :]
        return shown
