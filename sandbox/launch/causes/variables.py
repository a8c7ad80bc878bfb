"""Environment variables that an error names as missing."""

from __future__ import annotations

import re

_NAME = r"[\"'`]?(?P<name>[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)[\"'`]?"
_NOUN = r"(?i:(?:environment|env)(?: variables?| vars?))"
_LACKS = r"(?i: (?:is |must be |was )?(?:not )?(?:set|defined|provided|required|missing))"
#: Sentences with which libraries and apps say that a variable is missing. Names in them are in capitals.
_SENTENCES = (
    re.compile(rf"(?i:missing|required|set the|no) (?:required )?{_NOUN}:? {_NAME}"),
    re.compile(rf"{_NOUN}:? {_NAME}{_LACKS}"),
    re.compile(rf"{_NAME} {_NOUN}{_LACKS}"),
    re.compile(rf"{_NAME} not found\. Declare it as envvar"),
    re.compile(rf"{_NAME}(?i: (?:is not set|is required|must be set|is not defined in the environment))"),
)
#: pydantic-settings: the field, and below it that it is required.
_SETTINGS = re.compile(r"validation errors? for \w*(?:Settings|Config)\w*\n(?P<name>\w+)\n\s+Field required")


def named_variable(text: str) -> str | None:
    """The variable that an error's message says is not set; None if it says nothing like that."""
    if match := _SETTINGS.search(text):
        return match["name"].upper()
    for sentence in _SENTENCES:
        if match := sentence.search(text):
            return match["name"]
    return None


def variable_hint(name: str) -> str:
    """How to set the variable."""
    return f'Set it for the session (sandbox create PATH --env {name}=…), or in sandbox.toml: env = {{ {name} = "…" }}'
