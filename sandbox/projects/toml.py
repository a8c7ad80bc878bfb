"""Reads TOML of projects in time that is proportional to its size."""

from __future__ import annotations

import re
import tomllib
from typing import Any

#: Most dots outside of strings in one line. The standard library's reader takes quadratic time for keys of many parts,
#: and a key cannot go on in the next line.
MAX_DOTS = 100
_STRINGS = re.compile(r'"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'")


class TomlInvalid(ValueError):
    """It is not TOML, or has keys of more parts than are read."""


def load_toml(text: str) -> dict[str, Any]:
    """The content of a document. Raises TomlInvalid."""
    # Within strings of several lines the ends of strings cannot be found line by line.
    plain = '"""' not in text and "'''" not in text
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS and (not plain or _STRINGS.sub("", line).count(".") > MAX_DOTS):
            raise TomlInvalid(f"line {number} has more than {MAX_DOTS} dots outside of strings")
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TomlInvalid(str(error)) from error
